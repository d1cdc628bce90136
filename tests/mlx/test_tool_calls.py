"""Tools through LiteLLM, on random weights under eleven families' templates."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import jsonschema
import litellm
import pytest
from litellm.exceptions import BadRequestError, UnsupportedParamsError

from tests.tiny_model import make_tiny_model
from tests.tool_families import FAMILIES, TEMPLATES, TOOLS, Family

USER = [{"role": "user", "content": "hello"}]
NAMED = {"type": "function", "function": {"name": "set_alarm"}}
ANSWER = {
    "type": "object",
    "properties": {"answer": {"type": "integer"}},
    "required": ["answer"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": ANSWER}}
# What DSPy sends beside its tools where every output field is a call.
EMPTY = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
SCHEMAS = {t["function"]["name"]: t["function"].get("parameters", {}) for t in TOOLS}

CASES: dict[str, dict[str, Any]] = {
    "auto": {},
    "required": {"tool_choice": "required"},
    "named": {"tool_choice": NAMED},
    "one at most": {"tool_choice": "required", "parallel_tool_calls": False},
    "with a schema": {"response_format": FORMAT},
    "with a schema, required": {"response_format": FORMAT, "tool_choice": "required"},
    "with an empty schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": EMPTY}}
    },
    "none": {"tool_choice": "none"},
}


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    family: Family = request.param
    path = make_tiny_model(
        tmp_path_factory.mktemp(family.name),
        chat_template=(TEMPLATES / f"{family.template}.jinja").read_text("utf-8"),
        added_tokens=() if family.name == "plain" else family.form.markers,
        config={"max_position_embeddings": 8192},
    )
    return f"mlx/{path}"


def ask(model: str, **options: Any) -> Any:
    given = {"messages": USER, "tools": TOOLS, "max_tokens": 120, "temperature": 1.0, **options}
    return litellm.completion(model=model, **given)


def calls_of(message: Any) -> list[tuple[str, dict[str, Any]]]:
    """The calls of a message, each valid by its tool's schema and with an id of its own."""
    calls = message.tool_calls or []
    assert len({call.id for call in calls}) == len(calls)
    found = [(call.function.name, json.loads(call.function.arguments)) for call in calls]
    for name, arguments in found:
        jsonschema.validate(arguments, SCHEMAS[name])
    return found


def assert_case(case: str, choice: Any) -> None:
    calls = calls_of(choice.message)
    is_whole = choice.finish_reason != "length"
    if is_whole:
        assert choice.finish_reason == ("tool_calls" if calls else "stop")
    if case in ("required", "named", "one at most", "with an empty schema"):
        assert calls
        assert choice.message.content is None
    if case == "named":
        assert [name for name, _ in calls] == ["set_alarm"]
    if case == "one at most":
        assert len(calls) == 1
    if case == "none":
        assert not calls
    if "schema" in case and not calls:
        jsonschema.validate(json.loads(choice.message.content), ANSWER)


@pytest.mark.parametrize("case", CASES)
def test_every_choice_is_kept(model: str, case: str) -> None:
    for seed in range(2):
        assert_case(case, ask(model, seed=seed, **CASES[case]).choices[0])


@pytest.mark.parametrize("case", ["auto", "required", "with a schema"])
def test_a_stream_gives_the_same_calls_in_deltas(model: str, case: str) -> None:
    whole = ask(model, seed=7, **CASES[case]).choices[0]
    chunks = list(ask(model, seed=7, stream=True, **CASES[case]))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    arguments: dict[int, str] = {}
    names: dict[int, str] = {}
    for chunk in chunks:
        for call in chunk.choices[0].delta.tool_calls or []:
            if call.function.name:
                assert call.id
                names[call.index] = call.function.name
            arguments[call.index] = arguments.get(call.index, "") + (call.function.arguments or "")
    calls = [(names[i], json.loads(arguments[i])) for i in sorted(names)]
    assert calls == calls_of(whole.message)
    assert text.strip() == (whole.message.content or "").strip()
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason


def test_a_history_of_calls_and_results_is_understood(model: str) -> None:
    first = ask(model, seed=1, tool_choice="required").choices[0].message
    history = [*USER, first.model_dump()]
    history += [
        {"role": "tool", "tool_call_id": call.id, "content": f"done {i}"}
        for i, call in enumerate(first.tool_calls)
    ]
    short, long = ask(model, messages=USER), ask(model, messages=history, seed=2)
    assert long.usage.prompt_tokens > short.usage.prompt_tokens
    assert_case("auto", long.choices[0])


def test_the_older_functions_are_answered_in_their_form(model: str) -> None:
    functions = [tool["function"] for tool in TOOLS]
    response = ask(
        model, tools=None, functions=functions, function_call={"name": "set_alarm"}, seed=1
    )
    choice = response.choices[0]
    assert choice.message.function_call.name == "set_alarm"
    jsonschema.validate(json.loads(choice.message.function_call.arguments), SCHEMAS["set_alarm"])
    # a family with channels may think until the budget closes the call
    assert choice.finish_reason in ("function_call", "length")
    assert choice.message.tool_calls is None


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "nope"}}}, "nope"),
        ({"tool_choice": "sometimes"}, "sometimes"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "get_weather"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "name"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": 5}}}]},
            "'f'",
        ),
        ({"tools": None, "tool_choice": "required"}, "no tools"),
        ({"guided_grammar": 'start: "a"'}, "grammar"),
    ],
)
def test_a_bad_tool_is_refused_by_name(tiny: str, options: dict[str, Any], named: str) -> None:
    with pytest.raises((BadRequestError, UnsupportedParamsError)) as caught:
        ask(tiny, **options)
    assert named in str(caught.value)


def test_a_tool_that_nothing_satisfies_is_refused_by_its_name(tiny: str) -> None:
    impossible = {"type": "string", "enum": [1]}
    nothing = {"type": "object", "properties": {"n": impossible}, "required": ["n"]}
    odd = {"type": "function", "function": {"name": "odd_one", "parameters": nothing}}
    with pytest.raises(BadRequestError, match="tool 'odd_one': "):
        ask(tiny, tools=[*TOOLS, odd])


def test_streamed_deltas_name_their_type_and_end_in_no_other_block(tiny: str) -> None:
    for seed in range(2):
        stream = ask(tiny, tool_choice="required", stream=True, seed=seed)
        deltas = [chunk.choices[0].delta for chunk in stream]
        calls = [call for delta in deltas for call in delta.tool_calls or []]
        assert calls
        assert {call.type for call in calls} == {"function"}
        assert not any(delta.content for delta in deltas)


def test_anthropics_messages_have_no_empty_text_after_a_streamed_call(tiny: str) -> None:
    parameters = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}

    async def kinds() -> list[str]:
        stream: Any = await litellm.anthropic.messages.acreate(
            model=tiny,
            messages=USER,
            max_tokens=120,
            tools=[{"name": "count", "input_schema": parameters}],
            tool_choice={"type": "any"},
            stream=True,
        )
        text = b"".join([chunk async for chunk in stream]).decode()
        events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
        starts = [event for event in events if event["type"] == "content_block_start"]
        return [event["content_block"]["type"] for event in starts]

    found = asyncio.run(kinds())
    assert found
    assert set(found) == {"tool_use"}
