"""Stop texts beside tools end free text where they come, and never touch a call."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import litellm
import pytest
from litellm.exceptions import UnsupportedParamsError

from litellm_mlx.errors import UnsupportedParameterError
from litellm_mlx.translate.tool_reader import read_calls
from tests.mlx.test_tools import allows, planned
from tests.tool_families import FAMILIES, TOOLS, Family, vocabulary_of

USER = [{"role": "user", "content": "hello"}]
LETTERS = ["e", "n", "i"]  # that no call of the plain form begins with
STOPS = ["\nObservation:", "###"]
by_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@by_family
@pytest.mark.parametrize("stop", STOPS)
def test_a_stop_text_ends_free_text_and_nothing_follows(family: Family, stop: str) -> None:
    plan, vocabulary = planned(family.form, stop=STOPS), vocabulary_of(family.name)
    head = family.form.answer_head
    for text in ("I think", ""):
        assert allows(plan, vocabulary, head + text)
        assert allows(plan, vocabulary, head + text + stop)
        assert not allows(plan, vocabulary, f"{head}{text}{stop}x")
        assert not allows(plan, vocabulary, f"{head}{text}{stop}{family.text}")


@by_family
def test_calls_may_hold_what_stops_text(family: Family) -> None:
    plan, vocabulary = (
        planned(family.form, stop=[*STOPS, "São", "city"]),
        vocabulary_of(family.name),
    )
    assert allows(plan, vocabulary, family.text)
    reader = plan.reader()
    content, calls = read_calls(reader, family.text)
    assert (content, len(calls), reader.stop_sequence) == ("", family.num_calls, None)


@by_family
@pytest.mark.parametrize("length", [1, 2, 5, 100])
def test_streamed_pieces_are_cut_before_the_stop_text(family: Family, length: int) -> None:
    reader = planned(family.form, stop=STOPS).reader()
    text = f"{family.form.answer_head}Well: a#\nOb\nObservation:"
    pieces = [reader.add(text[at : at + length]) for at in range(0, len(text), length)]
    pieces.append(reader.finish())
    assert "".join(piece.text for piece in pieces) == "Well: a#\nOb"
    assert reader.stop_sequence == "\nObservation:"


@by_family
def test_a_stop_text_that_does_not_come_costs_no_words(family: Family) -> None:
    reader = planned(family.form, stop=STOPS).reader()
    content, _ = read_calls(reader, f"{family.form.answer_head}so ##\nObservation")
    assert (content, reader.stop_sequence) == ("so ##\nObservation", None)


@pytest.mark.parametrize("name", ["hermes", "mistral", "llama"])
def test_a_stop_text_that_would_cut_the_beginning_of_a_call_is_refused(name: str) -> None:
    form = next(f.form for f in FAMILIES if f.name == name)
    trigger = form.trigger
    for stop in (trigger, trigger[0], trigger[1:3], f"a{trigger[:2]}", f"\n{trigger}\n"):
        with pytest.raises(UnsupportedParameterError, match="would cut"):
            planned(form, stop=[stop])
        planned(form, stop=[stop], tool_choice="required")  # no free text, nothing to cut


def ask(model: str, **options: Any) -> Any:
    given = {"messages": USER, "tools": TOOLS, "max_tokens": 200, "temperature": 1.0, **options}
    return litellm.completion(model=model, **given)


def test_text_ends_before_the_stop_text_and_the_answer_names_it(tiny: str) -> None:
    """Random weights write any letter sooner or later, so that a letter is a stop text."""
    num_stopped = 0
    for seed in range(4):
        choice = ask(tiny, seed=seed, stop=LETTERS).choices[0]
        text = choice.message.content or ""
        assert not set(text) & set(LETTERS)
        extras = choice.message.provider_specific_fields
        if "stop_sequence" in extras:
            num_stopped += 1
            assert extras["stop_sequence"] in LETTERS
            assert choice.finish_reason == "stop"
            assert not choice.message.tool_calls
    assert num_stopped


def test_a_stream_is_the_whole_answer_and_names_the_stop_text(tiny: str) -> None:
    whole = ask(tiny, seed=3, stop=LETTERS).choices[0]
    chunks = list(ask(tiny, seed=3, stop=LETTERS, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole.message.content
    extras = [c.choices[0].delta.provider_specific_fields for c in chunks]
    (found,) = [extra for extra in extras if extra]
    assert found["stop_sequence"] == whole.message.provider_specific_fields["stop_sequence"]
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_free_text_without_tools_names_its_stop_text_too(tiny: str) -> None:
    choice = ask(tiny, tools=None, seed=1, stop=["q", "e"]).choices[0]
    assert choice.finish_reason == "stop"
    assert choice.message.provider_specific_fields == {"stop_sequence": "e"}


@pytest.mark.parametrize(
    "options",
    [
        {"guided_regex": "[a-d]{8}"},
        {"guided_choice": ["abcd", "dcba"]},
        {"guided_grammar": 'start: "abcd"'},
        {"guided_json": {"const": "abcd"}},
        {"guided_json": {"const": "abcd"}, "tools": TOOLS},
    ],
)
def test_what_a_constraint_says_is_never_cut(tiny: str, options: dict[str, Any]) -> None:
    given = {"tools": None, **options}
    whole, stopped = (ask(tiny, seed=1, stop=stop, **given) for stop in (None, ["b", "c"]))
    assert stopped.choices[0].message.content == whole.choices[0].message.content
    calls = [
        [json.loads(call.function.arguments) for call in answer.choices[0].message.tool_calls or []]
        for answer in (whole, stopped)
    ]
    assert calls[0] == calls[1]


def test_beside_a_structural_tag_it_is_refused(tiny: str) -> None:
    tag = {"type": "structural_tag", "format": {"type": "any_text"}}
    with pytest.raises(UnsupportedParamsError, match="structural tag"):
        ask(tiny, tools=None, response_format=tag, stop=["b"])


def test_anthropics_messages_name_the_stop_text(tiny: str) -> None:
    """Both ways of an answer say why it ended, and a call is no such end."""
    asked: dict[str, Any] = {"model": tiny, "messages": USER, "max_tokens": 200, "seed": 3}
    asked |= {"temperature": 1.0, "stop_sequences": LETTERS}

    async def whole() -> Any:
        return await litellm.anthropic_messages(**asked)

    async def streamed() -> list[dict[str, Any]]:
        stream: Any = await litellm.anthropic_messages(**asked, stream=True)
        lines = b"".join([chunk async for chunk in stream]).decode().splitlines()
        return [json.loads(line[6:]) for line in lines if line.startswith("data: ")]

    answer = asyncio.run(whole())
    assert answer["stop_reason"] == "stop_sequence" and answer["stop_sequence"] in LETTERS
    (ending,) = [e["delta"] for e in asyncio.run(streamed()) if e["type"] == "message_delta"]
    assert (ending["stop_reason"], ending["stop_sequence"]) == (
        answer["stop_reason"],
        answer["stop_sequence"],
    )
    limited = asyncio.run(_limited(asked))
    assert (limited["stop_reason"], limited["stop_sequence"]) == ("max_tokens", None)


async def _limited(asked: dict[str, Any]) -> Any:
    return await litellm.anthropic_messages(**{**asked, "stop_sequences": None, "max_tokens": 3})
