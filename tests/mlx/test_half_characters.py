"""Half an emoji anywhere in a request is replaced or refused by name, and never a server error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import litellm
import pytest

from litellm_mlx.translate.well_formed import well_formed

HALF = json.loads('"cut \\ud83d"')  # as JSON of a client that counts UTF-16 units
REST = json.loads('"\\ude00"')
ESCAPED = "cut \\ud83d"  # the same within JSON text
USER = {"role": "user", "content": "hello"}


def call(name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {
        "role": "assistant",
        "tool_calls": [{"id": "c", "type": "function", "function": function}],
    }


def tool(**changes: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f", **changes}}]}


def properties(**given: Any) -> dict[str, Any]:
    return {"parameters": {"type": "object", "properties": given}}


def schema(schema: dict[str, Any]) -> dict[str, Any]:
    json_schema = {"name": "answer", "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": json_schema}}


RESULT = {"role": "tool", "tool_call_id": "c", "content": HALF}
READ = {  # what a model reads: served
    "text": {"messages": [{"role": "user", "content": HALF}]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": HALF}]}]},
    "name": {"messages": [{**USER, "name": HALF}]},
    "role": {"messages": [{**USER, "role": HALF}]},
    "past call": {"messages": [USER, call(HALF, json.dumps({HALF: HALF})), RESULT]},
    "past call's text": {"messages": [USER, call("f", f'{{"a": "{ESCAPED}"}}'), RESULT]},
    "prefill": {"messages": [USER, {"role": "assistant", "content": HALF}]},
    "tool": tool(description=HALF),
    "property": tool(**properties(a={"type": "string", "description": HALF})),
    "schema": schema({"type": "string", "title": HALF, "description": ESCAPED}),
    "template": {"chat_template_kwargs": {"x": HALF}},
}
HELD = {  # what the answer would have to hold: refused
    "tool's name": tool(name=HALF),
    "property's name": tool(**properties(**{HALF: {"type": "string"}})),
    "enum": tool(**properties(a={"enum": [HALF]})),
    "property named title": schema({"type": "object", "properties": {"title": {"const": HALF}}}),
    "choice of a tool": {**tool(), "tool_choice": {"type": "function", "function": {"name": HALF}}},
    "stop": {"stop": HALF},
    "stops": {"stop": ["a", HALF]},
    "const": schema({"const": HALF}),
    "pattern": schema({"type": "string", "pattern": f"^{HALF}"}),
    "schema as text": {"guided_json": f'{{"const": "{ESCAPED}"}}'},
    "choice": {"guided_choice": [HALF]},
    "regex": {"guided_regex": HALF},
    "grammar": {"guided_grammar": f'root ::= "{HALF}"'},
    "key": {"prompt_cache_key": HALF},
}


def ask(model: str, given: dict[str, Any]) -> Any:
    return litellm.completion(
        model=model, **{"messages": [USER], "max_tokens": 8, "num_retries": 0, **given}
    )


@pytest.mark.parametrize("given", READ.values(), ids=READ)
def test_what_a_model_reads_is_served(tiny: str, given: dict[str, Any]) -> None:
    assert ask(tiny, given).usage.completion_tokens > 0


@pytest.mark.parametrize("given", HELD.values(), ids=HELD)
def test_what_an_answer_would_hold_is_refused(tiny: str, given: dict[str, Any]) -> None:
    with pytest.raises(litellm.BadRequestError, match=r"half a (character|surrogate)"):
        ask(tiny, given)


def served_elsewhere() -> dict[str, Callable[[str], Any]]:
    return {
        "text completion": lambda m: litellm.text_completion(model=m, prompt=HALF, max_tokens=3),
        "responses": lambda m: litellm.responses(
            model=m, input=HALF, instructions=HALF, max_output_tokens=3
        ),
        "messages": lambda m: asyncio.run(
            litellm.anthropic.messages.acreate(
                model=m, messages=[{**USER, "content": HALF}], system=HALF, max_tokens=3
            )
        ),
    }


@pytest.mark.parametrize("route", served_elsewhere())
def test_every_route_is_served(tiny: str, route: str) -> None:
    assert served_elsewhere()[route](tiny)


def test_two_halves_that_fit_are_one_character(tiny: str) -> None:
    assert well_formed([HALF + REST, {"a": HALF}]) == ["cut \U0001f600", {"a": "cut \ufffd"}]
    whole, halves = (
        ask(tiny, {"messages": [{**USER, "content": text}]}).usage.prompt_tokens
        for text in ("cut \U0001f600", HALF + REST)
    )
    assert whole == halves
