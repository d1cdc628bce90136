"""Schemas that the grammar cannot hold alone: checked, drawn anew, and given up with an error."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import litellm
import pytest
from litellm.exceptions import JSONSchemaValidationError

from litellm_mlx import observe
from litellm_mlx.register import handler

USER = [{"role": "user", "content": "hello"}]


def schema_format(items: dict[str, Any]) -> dict[str, Any]:
    array = {"type": "array", "items": items, "minItems": 2, "maxItems": 2, "uniqueItems": True}
    schema = {
        "type": "object",
        "properties": {"pair": array},
        "required": ["pair"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}


# Two of four letters: one draw in four fails, if they are as likely.
OFTEN = schema_format({"enum": ["a", "b", "c", "d"]})
NEVER = schema_format({"enum": ["a"]})
COIN = schema_format({"type": "boolean"})
PLAIN = {
    "type": "json_schema",
    "json_schema": {
        "schema": {
            "type": "object",
            "properties": {"ok": {"type": "boolean"}},
            "required": ["ok"],
            "additionalProperties": False,
        }
    },
}


def ask(model: str, **options: Any) -> Any:
    return litellm.completion(model=model, **{"messages": USER, "max_tokens": 40, **options})


def fields(choice: Any) -> dict[str, Any]:
    found: dict[str, Any] = choice.message.provider_specific_fields
    return found


def assert_pair(text: str) -> None:
    first, second = json.loads(text)["pair"]
    assert first != second


def test_what_fails_is_drawn_anew_until_it_passes(tiny: str) -> None:
    tries = []
    for seed in range(30):
        response = ask(tiny, response_format=OFTEN, seed=seed, temperature=1)
        (choice,) = response.choices
        assert_pair(choice.message.content)
        assert fields(choice)["tier"] == "grammar+check"
        tries.append(fields(choice)["tries"])
    assert min(tries) == 1 < max(tries)


def test_every_try_counts_in_the_usage(tiny: str) -> None:
    by_tries: dict[int, int] = {}
    for seed in range(30):
        response = ask(tiny, response_format=OFTEN, seed=seed, temperature=1)
        by_tries[fields(response.choices[0])["tries"]] = response.usage.completion_tokens
    assert by_tries[2] >= 1.5 * by_tries[1]


def test_every_try_counts_among_the_forced_tokens(tiny: str) -> None:
    """All but the two letters is forced, in every text that is drawn."""
    outcomes: list[observe.Outcome] = []
    observe.add_observer(outcomes.append)
    for seed in range(30):
        ask(tiny, response_format=OFTEN, seed=seed, temperature=1)
    observe.remove_observer(outcomes.append)
    dones = [outcome.done for outcome in outcomes if isinstance(outcome, observe.Answered)]
    assert max(done.num_tries for done in dones) > 1
    for done in dones:
        assert done.usage.completion_tokens - done.num_forced_tokens == 2 * done.num_tries


def test_a_seed_gives_the_same_tries_again(tiny: str) -> None:
    for seed in range(5):
        one, two = (ask(tiny, response_format=OFTEN, seed=seed, temperature=1) for _ in range(2))
        assert one.choices[0].message == two.choices[0].message


def test_a_greedy_model_gets_some_temperature_after_a_failure(tiny: str) -> None:
    # A greedy draw of two equal coins would fail for ever; six tries of fair ones rarely do.
    passed = 0
    for content in "abcdefgh":
        user = [{"role": "user", "content": content}]
        try:
            response = ask(tiny, messages=user, response_format=COIN, temperature=0)
        except JSONSchemaValidationError:
            continue
        assert_pair(response.choices[0].message.content)
        passed += 1
    assert passed >= 4


def test_what_cannot_pass_ends_in_the_validators_message(tiny: str) -> None:
    with pytest.raises(JSONSchemaValidationError, match=r"no text of 6 tries.*unique") as caught:
        ask(tiny, response_format=NEVER)
    assert json.loads(caught.value.raw_response) == {"pair": ["a", "a"]}


def test_each_of_n_completions_passes(tiny: str) -> None:
    response = ask(tiny, response_format=OFTEN, n=6, seed=1, temperature=1)
    for choice in response.choices:
        assert_pair(choice.message.content)
    assert len(response.choices) == 6


def test_a_stream_is_held_back_until_it_has_passed(tiny: str) -> None:
    whole = ask(tiny, response_format=OFTEN, seed=4, temperature=1)
    chunks = list(ask(tiny, response_format=OFTEN, seed=4, temperature=1, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    extras = [
        e for c in chunks if (e := getattr(c.choices[0].delta, "provider_specific_fields", 0))
    ]
    assert extras[-1]["tier"] == "grammar+check"
    with pytest.raises(JSONSchemaValidationError):
        for chunk in ask(tiny, response_format=NEVER, stream=True):
            assert not chunk.choices[0].delta.content


def test_async_calls_and_streams_are_checked_too(tiny: str) -> None:
    async def run() -> None:
        options: dict[str, Any] = {"model": tiny, "messages": USER, "max_tokens": 40, "seed": 4}
        options |= {"response_format": OFTEN, "temperature": 1}
        whole = await litellm.acompletion(**options)
        stream = await litellm.acompletion(**options, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert_pair(text)
        assert text == whole.choices[0].message.content

    asyncio.run(run())


def test_leaving_a_checked_stream_frees_the_row(tiny: str) -> None:
    stream = ask(tiny, response_format=NEVER, stream=True, max_tokens=40)
    stream.completion_stream.close()
    engine = handler.registry.engine(tiny.removeprefix("mlx/"))
    for _ in range(200):
        if engine.stats().num_live == 0:
            break
        ask(tiny, max_tokens=1)
    assert engine.stats().num_live == 0


def test_a_schema_that_the_grammar_holds_says_so(tiny: str) -> None:
    choice = ask(tiny, response_format=PLAIN).choices[0]
    assert fields(choice) == {
        "tier": "grammar",
        "tries": 1,
        "closed_by_budget": False,
        "repairs": [],
    }
    free = ask(tiny).choices[0].message
    assert getattr(free, "provider_specific_fields", None) is None
