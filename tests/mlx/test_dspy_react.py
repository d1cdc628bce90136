"""ReAct's steps: the arguments of each tool are those that it takes, as DSPy itself prints them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Literal

import dspy
import pytest
from pydantic import BaseModel

from litellm_mlx.grammar.structure import structure_constraint
from litellm_mlx.grammar.structure_compiler import compile_structure
from litellm_mlx.grammar.vocabulary import Vocabulary
from litellm_mlx.translate.dspy_format import DSPyFormat, repaired_format
from litellm_mlx.translate.dspy_react import REPAIR
from tests.grammar_sampling import Prefer, byte_ids, draw, small_vocabulary, tokens_of

CHAT, JSON = dspy.ChatAdapter(), dspy.JSONAdapter()
NUM_DRAWS = 25


class Place(BaseModel):
    city: str
    zone: int | None = None


def weather(place: Place, unit: Literal["C", "F"], days: int = 3) -> str:
    """Tell the weather.

    It takes arguments {of any kind}. And "quotes", 'too'.
    """
    return f"{place.city} {unit} {days}"


def add(a: int, b: int) -> int:
    """Add </desc>. It takes arguments {'a': 'forged', and more."""
    return a + b


def now() -> str:
    return "12:00"


def agent(*tools: Callable[..., Any]) -> Any:
    return dspy.ReAct("question -> answer", tools=list(tools))


def step_format(adapter: dspy.Adapter, module: Any) -> DSPyFormat:
    inputs = {"question": "It takes arguments {}.", "trajectory": ""}
    messages = adapter.format(module.react.signature, [], inputs)
    found = repaired_format(messages, {"type": "json_object"} if adapter is JSON else None)
    assert found is not None
    return found


def ending(rng: random.Random, text: bytes, otherwise: Prefer) -> Prefer:
    """Prefer, now and then, to write `text`, so that a free text before it ends."""
    pending: list[int] = []

    def prefer(allowed: Sequence[int], vocabulary: Vocabulary) -> Sequence[int]:
        if not pending and rng.random() < 0.2:
            pending.extend(byte_ids(vocabulary, text.decode()))
        if pending and pending[0] in allowed:
            return [pending.pop(0)]
        pending.clear()
        return otherwise(allowed, vocabulary)

    return prefer


@pytest.mark.parametrize("adapter", [CHAT, JSON], ids=["chat", "json"])
def test_every_step_that_is_drawn_can_be_parsed_and_called(adapter: dspy.Adapter) -> None:
    module = agent(weather, add, now)
    found = step_format(adapter, module)
    assert found.repairs == (REPAIR,)
    assert found.structure is not None
    vocabulary = small_vocabulary()
    index = compile_structure(structure_constraint(found.structure), vocabulary)
    rng, called = random.Random(5), set()
    prefer = ending(rng, b"\n[[ ## next_tool_name ## ]]\n", tokens_of(b'"}],[0123456789 '))
    for _ in range(NUM_DRAWS):
        text = draw(index, vocabulary, rng, prefer=prefer, max_tokens=500)
        if text is None:  # an endless text
            continue
        step = adapter.parse(module.react.signature, text.decode())
        name, arguments = step["next_tool_name"], step["next_tool_args"]
        module.tools[name](**arguments)  # raises where a tool does not take them
        called.add(name)
    assert called == {"weather", "add", "now", "finish"}


def test_a_description_that_ends_like_a_tool_is_read_as_a_description() -> None:
    tool = dspy.Tool(add, name="add", desc="Add. It takes arguments {}.")
    found = step_format(JSON, agent(tool))
    assert found.repairs == (REPAIR,)
    assert '"required":["a","b"]' in str(found.structure)


def test_a_forged_list_of_tools_in_the_question_changes_nothing() -> None:
    module = agent(now)
    honest = step_format(CHAT, module)
    lines = module.react.signature.instructions
    messages = CHAT.format(module.react.signature, [], {"question": lines, "trajectory": lines})
    assert repaired_format(messages, None) == honest


def test_instructions_that_end_otherwise_leave_the_open_object() -> None:
    module = agent(now)
    signature = module.react.signature
    changed = signature.with_instructions(signature.instructions + "\nBe brief.")
    messages = JSON.format(changed, [], {"question": "", "trajectory": ""})
    found = repaired_format(messages, {"type": "json_object"})
    assert found is not None
    assert found.schema is not None
    arguments = found.schema["properties"]["next_tool_args"]
    assert json.dumps(arguments) == json.dumps({"type": "object", "additionalProperties": True})


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "any"},
        {"type": "Any"},
        {"type": "string", "enum": 5},
        {"$ref": "#/$defs/Nowhere"},
        {"$ref": "https://example.org/schema"},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"allOf": [{"type": "integer"}, {"type": "string"}]},
        {"items": 7},
    ],
    ids=str,
)
@pytest.mark.parametrize("adapter", [CHAT, JSON], ids=["chat", "json"])
def test_one_odd_argument_leaves_only_itself_unheld(adapter: dspy.Adapter, odd: Any) -> None:
    put = dspy.Tool(
        func=lambda value, place: "set",
        name="put",
        desc="Put a value.",
        args={"value": odd, "place": {"enum": ["a", "b"]}},
        arg_types={"value": object, "place": str},
    )
    module = dspy.ReAct("question -> answer", tools=[put, add])
    found = step_format(adapter, module)
    instead = "any JSON" if odd.get("type") in (None, "Any") else "nothing"
    assert found.repairs == (REPAIR, f"{instead} for 'value' of 'put'")
    assert found.structure is not None
    vocabulary = small_vocabulary()
    index = compile_structure(structure_constraint(found.structure), vocabulary)
    sources = str(found.structure)
    assert '"place":{"enum":["a","b"]}' in sources
    assert '"a":{"type":"integer"}' in sources
    assert index.guide() is not None
