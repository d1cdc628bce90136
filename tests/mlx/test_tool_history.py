"""Tools, past calls and their results reach the prompt through every family's template."""

from __future__ import annotations

from typing import Any

import pytest

from litellm_mlx.errors import RequestError
from litellm_mlx.translate.messages import render_chat
from litellm_mlx.translate.params import parse_params
from litellm_mlx.translate.tool_formats.families import form_of
from litellm_mlx.translate.tools import plan_tools
from tests.tool_families import FAMILIES, TEMPLATES, TOOLS, tokenizer_of

NAMES = [family.name for family in FAMILIES]


def call(call_id: str, name: str, arguments: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


# As OpenAI's client sends them: content is null, arguments are text, results have no names.
HISTORY: list[dict[str, Any]] = [
    {"role": "system", "content": "Be terse."},
    {"role": "user", "content": "Weather and an alarm, please."},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            call("call_aaaaaaaaaaaaaaaa", "get_weather", '{"city": "Oslo", "days": 4}'),
            call("call_bbbbbbbbbbbbbbbb", "set_alarm", '{"hour": 7, "sound": "bird"}'),
        ],
    },
    {"role": "tool", "tool_call_id": "call_bbbbbbbbbbbbbbbb", "content": "alarm-is-set"},
    {
        "role": "tool",
        "tool_call_id": "call_aaaaaaaaaaaaaaaa",
        "content": [{"type": "text", "text": 'said "sunny"'}],
    },
    {"role": "user", "content": "Thanks. And tomorrow?"},
]


def rendered(family: str, messages: list[dict[str, Any]], *, has_tools: bool = True) -> str:
    tokenizer = tokenizer_of(family)
    given = {"tools": TOOLS} if has_tools else {}
    plan = plan_tools(parse_params(given, drops_unsupported=False), None, form_of(tokenizer))
    return render_chat(tokenizer, messages, {}, tools=plan.template_tools if plan else ())


@pytest.mark.parametrize("family", NAMES)
def test_tools_reach_the_prompt(family: str) -> None:
    text = rendered(family, [{"role": "user", "content": "Hello"}])
    assert all(name in text for name in ("get_weather", "set_alarm", "stop_all", "maxItems"))


@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("has_tools", [True, False])
def test_calls_and_results_reach_the_prompt(family: str, has_tools: bool) -> None:
    text = rendered(family, HISTORY, has_tools=has_tools)
    words = [
        "terse",
        "Oslo",
        "bird",
        "get_weather",
        "set_alarm",
        "alarm-is-set",
        "sunny",
        "tomorrow",
    ]
    assert [word for word in words if word not in text] == []
    assert "{'city'" not in text  # Python's notation
    assert text.index("Oslo") < text.index("sunny")
    assert text.index("bird") < text.index("alarm-is-set")


@pytest.mark.parametrize("family", NAMES)
def test_the_answer_after_a_result_is_the_models(family: str) -> None:
    text = rendered(family, HISTORY[:-1])
    assert "alarm-is-set" in text
    assert text.rindex("sunny") > text.index("Oslo")


@pytest.mark.parametrize("family", NAMES)
def test_the_older_function_role_is_known(family: str) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Alarm!"},
        {"role": "assistant", "function_call": {"name": "set_alarm", "arguments": '{"hour": 6}'}},
        {"role": "function", "name": "set_alarm", "content": "is-done"},
    ]
    text = rendered(family, messages)
    assert "set_alarm" in text.replace("declaration", "")
    assert "is-done" in text


def test_a_template_that_shows_no_tools_gets_an_instruction() -> None:
    text = rendered("plain", HISTORY[:2])
    assert text.startswith("<|im_start|>system\nBe terse.\n\nYou can call functions.")
    assert '<tool_call>\n{"name": "FUNCTION_NAME", "arguments": {"ARGUMENT_NAME": "VALUE"}}' in text
    assert "You can call functions" not in rendered("hermes", [HISTORY[1]])


def test_a_template_without_a_tool_role_gets_plain_words() -> None:
    text = rendered("plain", HISTORY)
    call_text = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo", "days": 4}}'
    assert f"<|im_start|>assistant\n{call_text}" in text
    assert (
        '<|im_start|>user\nResult of get_weather:\nsaid "sunny"\n\nResult of set_alarm:\n' in text
    )  # in the order of the calls


def test_a_template_of_strict_turns_without_system_gets_plain_words() -> None:
    tokenizer = tokenizer_of("plain")
    before = tokenizer.chat_template
    tokenizer.chat_template = (TEMPLATES / "turns.jinja").read_text("utf-8")
    try:
        text = rendered("plain", HISTORY)
    finally:
        tokenizer.chat_template = before
    assert text.startswith("<start_of_turn>user\nBe terse.")
    assert "You can call functions." in text
    assert text.count("<start_of_turn>model") == 2
    assert "Result of set_alarm:\nalarm-is-set\n\nThanks. And tomorrow?" in text


def test_one_call_a_message_where_the_template_wants_it() -> None:
    text = rendered("llama", HISTORY)
    assert text.count("<|start_header_id|>ipython<|end_header_id|>") == 2
    assert text.index("Oslo") < text.index("sunny") < text.index("bird")


def test_ids_of_nine_characters_where_the_template_wants_them() -> None:
    text = rendered("mistral", HISTORY)
    assert "[TOOL_RESULTS]" in text
    assert "call_aaaa" not in text
    kept = rendered("mistral", [{**m, **_short(m)} for m in HISTORY])
    assert '"id": "abcdefgh1"' in kept


def _short(message: dict[str, Any]) -> dict[str, Any]:
    short = {"call_aaaaaaaaaaaaaaaa": "abcdefgh1", "call_bbbbbbbbbbbbbbbb": "abcdefgh2"}
    if "tool_calls" in message:
        return {"tool_calls": [{**c, "id": short[c["id"]]} for c in message["tool_calls"]]}
    return {"tool_call_id": short[message["tool_call_id"]]} if "tool_call_id" in message else {}


def test_names_of_results_come_from_their_calls() -> None:
    text = rendered("gemma4", HISTORY)
    assert 'response:get_weather{value:<|"|>said "sunny"' in text
    assert "response:set_alarm{value:" in text


def test_arguments_are_text_where_the_template_wants_text() -> None:
    text = rendered("kimi_k2", HISTORY)
    assert '<|tool_call_argument_begin|>{"city": "Oslo", "days": 4}<|tool_call_end|>' in text


def test_a_role_that_no_template_knows_is_still_refused() -> None:
    with pytest.raises(RequestError, match="no such role"):
        rendered("plain", [{"role": "narrator", "content": "x"}], has_tools=False)
