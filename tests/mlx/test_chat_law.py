"""One law for every chat template: nothing of a conversation is lost, and all of it is in order.

Every text, name and argument of the conversations below has a word that occurs nowhere else, so
that its place in the prompt can be looked up without knowing how the prompt was made.
"""

from __future__ import annotations

import html
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from litellm_mlx.errors import RequestError
from litellm_mlx.translate.messages import render_chat
from litellm_mlx.translate.plain_messages import plain_message
from litellm_mlx.translate.tool_prompt import linked
from tests.chat_templates import LOSING, TEMPLATES, installed_templates, tokenizer_with
from tests.grammar_sampling import byte_tokenizer

Message = dict[str, Any]

WORD = re.compile(r"w\d+z")
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"{what} described",
            "parameters": {
                "type": "object",
                "properties": {"where": {"type": "string"}, "num": {"type": "integer"}},
                "required": ["where"],
            },
        },
    }
    for name, what in (("look_up", "d1z"), ("call_off", "d2z"))
]
TRICKY = "\"q\" 'a' \\n \\ {x} <b> & é 日本 \U0001f600\n  new line"

_number = itertools.count(1)


def text(more: str = "said") -> str:
    return f"w{next(_number)}z {more}"


def system() -> Message:
    return {"role": "system", "content": text("is the rule")}


def developer() -> Message:
    return {"role": "developer", "content": text("is another rule")}


def user(more: str = "asked") -> Message:
    return {"role": "user", "content": text(more)}


def assistant(more: str = "answered") -> Message:
    return {"role": "assistant", "content": text(more)}


def assistant_says(content: str) -> Message:
    return {"role": "assistant", "content": content}


def call(name: str = "look_up", *, more: str = "there", call_id: str | None = None) -> Any:
    arguments = json.dumps({"where": text(more), "num": next(_number) + 7000})
    function = {"name": name, "arguments": arguments}
    return {"id": call_id or f"call_{next(_number)}", "type": "function", "function": function}


def calls(*given: Any, said: str | None = None) -> Message:
    return {"role": "assistant", "content": said, "tool_calls": list(given)}


def result(of: Any, more: str = "found") -> Message:
    return {"role": "tool", "tool_call_id": of["id"], "content": text(more)}


def round_of(*given: Any, said: str | None = None) -> list[Message]:
    return [calls(*given, said=said), *(result(each) for each in given)]


def lone_result() -> Message:
    return {"role": "tool", "tool_call_id": "call_lost", "content": text("was found")}


def parts(*given: Message) -> Message:
    return {"role": "assistant", "content": list(given)}


def part(text: str) -> Message:
    return {"type": "text", "text": text}


THOUGHT = "t1z thought"
SHAPES: dict[str, list[Message]] = {
    "plain": [system(), user(), assistant(), user()],
    "one question": [user()],
    "system alone": [system()],
    "greeting first": [assistant("greets"), user()],
    "greeting after system": [system(), assistant("greets"), user()],
    "two users": [system(), user(), user(), assistant(), user(), user()],
    "two assistants": [user(), assistant(), assistant(), user()],
    "system in the middle": [system(), user(), assistant(), system(), user()],
    "system last": [user(), assistant(), user(), system()],
    "two rules": [system(), developer(), user()],
    "developer later": [system(), user(), assistant(), developer(), user()],
    "empty answer": [user(), {"role": "assistant", "content": ""}, user()],
    "lists": [
        {"role": "system", "content": [part(text()), part(text())]},
        {"role": "user", "content": [part(text()), part(text())]},
    ],
    "one call": [user(), *round_of(call()), assistant(), user()],
    "call last": [system(), user(), *round_of(call())],
    "text and call": [user(), *round_of(call(), said=text("will look")), assistant(), user()],
    "two calls": [user(), *round_of(call(), call("call_off"))],
    "two of one tool": [user(), *round_of(call(), call()), assistant(), user()],
    "two of one id": [user(), *round_of(call(call_id="a"), call(call_id="a")), user()],
    "one id in each turn": [
        *(user(), *round_of(call(call_id="a"))),
        *(user(), *round_of(call("call_off", call_id="a")), user()),
    ],
    "no arguments": [
        user(),
        *round_of({"id": "a", "type": "function", "function": {"name": "w9001z"}}),
        user(),
    ],
    "call after call": [user(), *round_of(call()), *round_of(call()), assistant(), user()],
    "user after result": [system(), user(), *round_of(call()), user()],
    "system after result": [system(), user(), *round_of(call()), system(), user()],
    "call without result": [user(), calls(call()), user()],
    "result without call": [lone_result(), user()],
    "lone result, then a call": [system(), lone_result(), assistant(), user(), *round_of(call())],
    "older functions": [
        user(),
        {"role": "assistant", "function_call": {"name": "look_up", "arguments": '{"a": "w9002z"}'}},
        {"role": "function", "name": "look_up", "content": text()},
    ],
    "arguments that are no JSON": [
        user(),
        *round_of({"id": "a", "function": {"name": "look_up", "arguments": '{"where": "w9003z'}}),
        user(),
    ],
    "arguments that are a list": [
        user(),
        *round_of({"id": "a", "function": {"name": "look_up", "arguments": '["w9004z"]'}}),
        user(),
    ],
    "a tool's name as text": [user("look_up"), *round_of(call(more="look_up")), user("call_off")],
    "tricky text": [system(), user(TRICKY), assistant(TRICKY), user(TRICKY)],
    "tricky arguments": [user(), *round_of(call(more=TRICKY)), assistant(TRICKY), user()],
    "nested arguments": [
        user(),
        *round_of(
            {
                "id": "a",
                "function": {
                    "name": "look_up",
                    "arguments": {"a": {"b": ["w9005z", {"c": "w9006z", "d": None}]}, "e": True},
                },
            }
        ),
    ],
    "refusal part": [
        user(),
        parts({"type": "refusal", "refusal": text()}, part(text())),
        user(),
    ],
    "refusal beside": [user(), {"role": "assistant", "refusal": text("No.")}, user()],
    "thinking part": [
        user(),
        parts({"type": "thinking", "thinking": THOUGHT, "signature": "x"}, part(text())),
        user(),
    ],
    "reasoning part": [
        user(),
        parts({"type": "reasoning", "summary": [{"type": "summary_text", "text": THOUGHT}]}),
        assistant(),
        user(),
    ],
    "redacted part": [
        user(),
        parts({"type": "redacted_thinking", "data": "x"}, part(text())),
        user(),
    ],
    "thought beside": [user(), {**assistant(), "reasoning_content": THOUGHT}, user()],
    "thought beside a call": [
        user(),
        {**calls(given := call()), "thinking_blocks": [{"type": "thinking", "thinking": THOUGHT}]},
        result(given),
    ],
    "thought in the text": [
        user(),
        {"role": "assistant", "content": f"<think>\n{THOUGHT}\n</think>\n\n{text()}"},
        user(),
    ],
    "a switch": [
        {"role": "system", "content": f"/no_think {text('rules')}"},
        user(),
        user("/think"),
    ],
    "markup in the text": [
        *(user("[INST] <b>"), assistant_says("<answer>w9007z</answer></s>")),
        *(user("<think>w9008z</think>"), assistant("<|im_end|> w9009z"), user()),
    ],
    "prefill": [system(), user(), assistant("begins")],
    "prefill alone": [assistant("begins")],
    "prefill after an answer": [user(), assistant(), assistant("begins")],
    "prefill after a result": [user(), *round_of(call()), assistant("begins")],
    "prefill of a thought": [
        user(),
        {
            "role": "assistant",
            "content": f"<think>\n{text('thinks')}\n</think>\n\n{text('begins')}",
        },
    ],
    "prefill of half a thought": [
        user(),
        {"role": "assistant", "content": f"<think>\n{text('thinks')}"},
    ],
}
# What tools can change: chats with calls, and some of the others.
WITH_TOOLS = {
    name: chat
    for name, chat in SHAPES.items()
    if "look_up" in str(chat) or name in ("plain", "two rules", "greeting first", "prefill")
}
# These have a thought before the last answer. A template that knows thoughts may leave it out.
THOUGHTS = [name for name, chat in SHAPES.items() if THOUGHT in str(chat)]


def words(value: Any) -> list[str]:
    return WORD.findall(json.dumps(value))


def units(chat: Sequence[Message]) -> Iterator[list[Message]]:
    """Messages that keep their order: each alone, but calls together with their results."""
    unit: list[Message] = []
    for message in chat:
        if message["role"] not in ("tool", "function") or not unit:
            yield unit
            unit = []
        unit.append(message)
    yield unit


def violations(chat: Sequence[Message], prompt: str) -> Iterator[str]:
    """What of the chat the prompt lacks, or has in another place."""
    place = {found[0]: found.start() for found in reversed(list(WORD.finditer(prompt)))}
    for word in words(list(chat)):
        if word not in place:
            yield f"{word} is lost"
            return
    last = -1
    for unit in units(chat):
        places = [place[word] for word in words(unit)]
        if places and min(places) <= last:
            yield f"{words(unit)} come too early"
        last = max([last, *places])
        yield from _of_a_round(unit, place, prompt)


def _of_a_round(unit: list[Message], place: dict[str, int], prompt: str) -> Iterator[str]:
    if not unit or not ("tool_calls" in unit[0] or "function_call" in unit[0]):
        if [place[w] for w in words(unit)] != sorted(place[w] for w in words(unit)):
            yield f"{words(unit)} are not in order"
        return
    given = unit[0].get("tool_calls") or [{"function": unit[0]["function_call"]}]
    results = dict(zip(range(len(given)), unit[1:], strict=False))
    order = [place[w] for w in words(unit[0].get("content")) + words(given)]
    if order != sorted(order):
        yield f"{words(given)} are not in order"
    for number, each in enumerate(given):
        own = [place[w] for w in words(each)]
        if number in results and own and place[words(results[number])[0]] < max(own):
            yield f"the result of {each} comes before it"
        if own:
            before = max([p for p in place.values() if p < min(own)], default=0)
            if each["function"]["name"] not in prompt[before : min(own) + 10]:
                yield f"the name of {each} is not at its arguments"
        numbers = re.findall(r'"num": (\d+)', str(each["function"].get("arguments")))
        yield from (f"{n} is lost" for n in numbers if n not in prompt)


def written(text: str) -> list[str]:
    """How a template may write a text: plainly, as JSON, or as markup."""
    quoted = [json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]]
    return [form(each) for each in (text, *quoted) for form in (str, html.escape, _jinja_escape)]


def _jinja_escape(text: str) -> str:
    return html.escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")


def rendered(template: str, chat: Sequence[Message], tools: Sequence[Any] = ()) -> str:
    return render_chat(tokenizer_with(template), chat, {}, tools=tools)


@pytest.mark.parametrize("has_tools", [False, True], ids=["alone", "with tools"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_all_of_a_conversation_is_in_the_prompt_in_order(name: str, has_tools: bool) -> None:
    wrong = []
    for shape, chat in (WITH_TOOLS if has_tools else SHAPES).items():
        try:
            prompt = rendered(TEMPLATES[name], chat, TOOLS if has_tools else ())
        except RequestError as error:
            wrong.append((shape, str(error)))
            continue
        wrong += [(shape, found) for found in violations(chat, prompt)]
        for one in ["d1z", "d2z", "look_up", "call_off", "where", "num"] if has_tools else ():
            wrong += [(shape, f"{one} of the tools is lost")] if one not in prompt else []
        if TRICKY in str(chat[-1].get("content")) and not any(w in prompt for w in written(TRICKY)):
            wrong.append((shape, "special characters are lost"))
    assert wrong == []


def test_templates_that_others_wrote_hold_the_law_too() -> None:
    templates = installed_templates()
    wrong = []
    for name, template in templates.items():
        for shape, chat in SHAPES.items():
            try:
                prompt = rendered(template, chat)
                wrong += [(name, shape, found) for found in violations(chat, prompt)]
            except RequestError as error:
                wrong.append((name, shape, str(error)))
    assert len(templates) >= 5
    assert wrong == []


def test_a_template_that_is_code_holds_the_law_too() -> None:
    from mlx_lm.chat_templates import deepseek_v32
    from mlx_lm.tokenizer_utils import TokenizerWrapper

    tokenizer = TokenizerWrapper(byte_tokenizer(), chat_template=deepseek_v32.apply_chat_template)
    wrong = []
    for shape, chat in SHAPES.items():
        prompt = render_chat(tokenizer, chat, {}, tools=TOOLS)
        wrong += [(shape, found) for found in violations(chat, prompt)]
    assert wrong == []
    calls_alone = render_chat(tokenizer, SHAPES["two calls"], {})
    assert 'parameter name="where" string="true">w' in calls_alone  # its own syntax


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_a_template_shows_by_itself_stays_as_it_is(name: str) -> None:
    wrong = []
    for shape, chat in SHAPES.items():
        tokenizer = tokenizer_with(TEMPLATES[name])
        plain = linked([plain_message(message) for message in chat])
        if chat[-1]["role"] == "assistant" or shape in THOUGHTS:
            continue
        try:
            own = tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
        except Exception:  # whatever the template raises
            continue
        is_python = re.search(r"\{'\w+': ", own) is not None
        is_chance = name == "kimi_ids" and shape == "a tool's name as text"
        if is_python or is_chance or list(violations(chat, own)):
            continue
        if rendered(TEMPLATES[name], chat) != own:
            wrong.append(shape)
    assert wrong == []


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_thought_is_kept_unless_the_template_knows_thoughts(name: str) -> None:
    template = TEMPLATES[name]
    if "think" in template or "reasoning" in template:
        return
    assert [s for s in THOUGHTS if "t1z" not in rendered(template, SHAPES[s])] == []


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_prefill_ends_the_prompt(name: str) -> None:
    wrong = []
    for shape, chat in SHAPES.items():
        if shape.startswith("prefill"):
            prompt = rendered(TEMPLATES[name], chat)
            end = chat[-1]["content"].rpartition("\n")[2]
            wrong += [] if any(map(prompt.endswith, written(end))) else [(shape, prompt[-80:])]
    assert wrong == []


@pytest.mark.parametrize("name", LOSING)
def test_what_no_shape_can_show_is_refused_by_name(name: str) -> None:
    with pytest.raises(RequestError, match=r"cannot show the text of message \d \(\w+\)"):
        rendered(LOSING[name], SHAPES["plain"])
