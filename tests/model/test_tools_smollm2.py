"""Tools on the real model: SmolLM2 was not trained for calls, and still makes only right ones."""

from __future__ import annotations

import json
from typing import Any

import dspy
import jsonschema
import litellm
import pytest

import litellm_mlx  # noqa: F401  # registers mlx/

pytestmark = pytest.mark.model

MODEL = "mlx/smollm2-135m"
WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
SUM: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
SCHEMAS = {"get_weather": WEATHER, "add": SUM}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": text, "parameters": schema}}
    for (name, schema), text in zip(
        SCHEMAS.items(), ("The weather of a city.", "Add two numbers."), strict=True
    )
]
QUESTION = [{"role": "user", "content": "What is the weather in Paris, in C? Call a function."}]
ADD = {"type": "function", "function": {"name": "add"}}


def ask(**options: Any) -> Any:
    given = {"messages": QUESTION, "tools": TOOLS, "max_tokens": 120, "temperature": 0, **options}
    return litellm.completion(model=MODEL, **given)


def calls_of(message: Any) -> list[tuple[str, dict[str, Any]]]:
    calls = [(c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls or []]
    for name, arguments in calls:
        jsonschema.validate(arguments, SCHEMAS[name])
    return calls


def test_a_required_call_is_the_right_one() -> None:
    choice = ask(tool_choice="required", parallel_tool_calls=False).choices[0]
    assert calls_of(choice.message) == [("get_weather", {"city": "Paris", "unit": "C"})]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)


def test_the_named_function_is_called_whatever_the_question() -> None:
    choice = ask(tool_choice=ADD).choices[0]
    assert [name for name, _ in calls_of(choice.message)] == ["add"]


def test_auto_and_none_answer_in_text_or_call() -> None:
    assert not calls_of(ask(tool_choice="none").choices[0].message)
    message = ask().choices[0].message
    assert calls_of(message) or message.content


def test_a_schema_beside_tools_is_kept_unless_there_is_a_call() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}}
    schema |= {"required": ["city"], "additionalProperties": False}
    shape = {"type": "json_schema", "json_schema": {"name": "c", "schema": schema}}
    for seed in range(6):
        message = ask(response_format=shape, temperature=1.0, seed=seed).choices[0].message
        if not calls_of(message):
            jsonschema.validate(json.loads(message.content), schema)


def test_a_streamed_call_equals_the_whole_one() -> None:
    whole = calls_of(ask(tool_choice="required").choices[0].message)
    chunks = list(ask(tool_choice="required", stream=True))
    built = litellm.stream_chunk_builder(chunks).choices[0].message  # type: ignore[union-attr]
    assert calls_of(built) == whole


def test_a_result_is_taken_into_the_answer() -> None:
    call = ask(tool_choice="required", parallel_tool_calls=False).choices[0].message
    result = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "17 degrees"}
    history = [*QUESTION, call.model_dump(), result]
    schema = {"type": "object", "properties": {"degrees": {"type": "integer"}}}
    schema |= {"required": ["degrees"], "additionalProperties": False}
    shape = {"type": "json_schema", "json_schema": {"name": "d", "schema": schema}}
    message = ask(messages=history, tool_choice="none", response_format=shape).choices[0].message
    assert json.loads(message.content) == {"degrees": 17}


def population(city: str) -> str:
    """Look up how many people live in a city."""
    return {"Oslo": "0.7 million"}.get(city, "unknown")


@pytest.mark.parametrize("adapter", [dspy.JSONAdapter, dspy.ChatAdapter])
def test_react_calls_its_tool(adapter: type[dspy.Adapter]) -> None:
    lm = dspy.LM(MODEL, cache=False, temperature=0, max_tokens=200)
    with dspy.context(lm=lm, adapter=adapter()):
        agent = dspy.ReAct("question -> answer: str", tools=[population], max_iters=2)
        trajectory = agent(question="How many people live in Oslo?").trajectory
    assert trajectory["tool_name_0"] in ("population", "finish")
    assert not any(str(v).startswith("Execution error") for v in trajectory.values())


def test_react_v2_calls_its_tools() -> None:
    lm = dspy.LM(MODEL, cache=False, temperature=0.7, max_tokens=200)
    with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
        agent = dspy.ReActV2("question -> answer: str", tools=[population], max_iters=3)
        prediction = agent(question="How many people live in Oslo?")
    assert isinstance(prediction.answer, str)


def test_a_signature_with_tool_calls_gets_them() -> None:
    lm = dspy.LM(MODEL, cache=False, temperature=0, max_tokens=200)
    signature = dspy.Signature(
        {
            "question": (str, dspy.InputField()),
            "tools": (list[dspy.Tool], dspy.InputField()),
            "calls": (dspy.ToolCalls, dspy.OutputField()),
        }
    )
    with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
        prediction = dspy.Predict(signature)(
            question="How many people live in Oslo?", tools=[dspy.Tool(population)]
        )
    (call, *_) = prediction.calls.tool_calls
    assert (call.name, list(call.args)) == ("population", ["city"])
    assert len(lm.history) == 1
