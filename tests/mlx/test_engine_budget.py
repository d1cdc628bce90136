"""The engine ends constrained texts within max_tokens, on random weights."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from litellm_mlx.engine import budget
from litellm_mlx.engine.engine import Engine
from litellm_mlx.engine.stream import EventStream
from litellm_mlx.errors import BudgetError
from litellm_mlx.grammar.closing import first_ending
from litellm_mlx.grammar.constraint import (
    grammar_constraint,
    json_schema_constraint,
    regex_constraint,
)
from litellm_mlx.grammar.structure import FreeText, Seq, Text, json_part, structure_constraint
from litellm_mlx.models.loader import LoadedModel
from litellm_mlx.types import (
    Constraint,
    Delta,
    Done,
    Finished,
    GenerationRequest,
    SamplingParams,
    Usage,
)
from tests.closing_schemas import SCHEMAS
from tests.tiny_engine import start

LONG_TEXT = json_schema_constraint(SCHEMAS["required"])
CALL = (FreeText(("<call>",)), Text("<call>"), json_part(SCHEMAS["nested"]), Text("</call>"))


@pytest.fixture(scope="module")
def engine(tiny_model_dir: Path) -> Iterator[Engine[LoadedModel]]:
    engine = start(tiny_model_dir)
    yield engine
    engine.shutdown()


def request(
    constraint: Constraint, max_tokens: int, seed: int = 0, **options: Any
) -> GenerationRequest:
    return GenerationRequest(
        tuple(range(20, 60)),
        max_tokens,
        sampling=SamplingParams(temperature=1.0, seed=seed),
        constraint=constraint,
        deadline_s=time.monotonic() + 60,
        **options,
    )


def outcome(stream: EventStream) -> tuple[str, Finished, Usage]:
    """The text of a request's only completion, how it ended, and what it cost."""
    text, finished, usage = "", None, None
    for event in stream:
        if isinstance(event, Delta):
            text += event.text
        elif isinstance(event, Finished):
            finished = event
        elif isinstance(event, Done):
            usage = event.usage
    assert finished is not None and usage is not None
    return text, finished, usage


@pytest.mark.parametrize("max_tokens", [64, 200])
def test_no_json_is_cut(engine: Engine[LoadedModel], max_tokens: int) -> None:
    """Every schema whose shortest text fits is answered, five times over."""
    running: list[tuple[dict[str, Any], EventStream]] = []
    num_refused = 0
    for schema in SCHEMAS.values():
        constraint = json_schema_constraint(schema)
        ending = first_ending(engine.index(constraint), constraint, limit=max_tokens)
        assert ending is not None
        for seed in range(5):
            if len(ending) <= max_tokens:
                stream = engine.submit(request(constraint, max_tokens, seed))
                running.append((schema, stream))
                continue
            num_refused += 1
            with pytest.raises(BudgetError, match=f"{len(ending)} tokens.*{max_tokens}"):
                engine.submit(request(constraint, max_tokens, seed))
    closed = 0
    for schema, stream in running:
        text, finished, usage = outcome(stream)
        jsonschema.validate(json.loads(text), schema)
        assert finished.reason == "length" or not finished.closed_by_budget
        assert usage.completion_tokens <= max_tokens
        closed += finished.closed_by_budget
    assert closed >= 10 and num_refused <= 10, (closed, num_refused)


@pytest.mark.parametrize(
    "constraint",
    [
        regex_constraint("[a-z]{5,400}!{3}"),
        grammar_constraint('start: "<" /[^<>]/+ ">" tail\ntail: "." | "," tail'),
        structure_constraint(Seq(CALL)),
    ],
    ids=lambda constraint: constraint.kind,
)
def test_other_texts_are_not_cut_either(
    engine: Engine[LoadedModel], constraint: Constraint
) -> None:
    streams = [engine.submit(request(constraint, 48, seed)) for seed in range(6)]
    outcomes = [outcome(stream) for stream in streams]
    for text, _, _ in outcomes:
        assert text.endswith(("!!!", ".", "</call>"))
    assert any(finished.closed_by_budget for _, finished, _ in outcomes)


@pytest.mark.parametrize("seed", range(3))
def test_hundreds_of_required_items_are_ended_too(engine: Engine[LoadedModel], seed: int) -> None:
    schema = {"type": "array", "items": {"type": "string"}, "minItems": 100}
    constraint = json_schema_constraint(schema)
    ending = first_ending(engine.index(constraint), constraint)
    assert ending is not None
    text, _, _ = outcome(engine.submit(request(constraint, len(ending) + 60, seed)))
    jsonschema.validate(json.loads(text), schema)


def test_tokens_of_an_ending_count_and_have_logprobs(engine: Engine[LoadedModel]) -> None:
    closed = 0
    ending = first_ending(engine.index(LONG_TEXT), LONG_TEXT)
    assert ending is not None
    max_tokens = len(ending) + 4
    for seed in range(8):
        events = list(engine.submit(request(LONG_TEXT, max_tokens, seed, num_top_logprobs=2)))
        logprobs = [p for e in events if isinstance(e, Delta) for p in e.logprobs]
        text = "".join(e.text for e in events if isinstance(e, Delta))
        assert b"".join(p.token_bytes for p in logprobs).decode(errors="replace") == text
        (finished,) = (e for e in events if isinstance(e, Finished))
        (done,) = (e for e in events if isinstance(e, Done))
        assert done.usage.completion_tokens == len(logprobs) <= max_tokens
        if finished.closed_by_budget:
            closed += 1
            assert logprobs[-1].logprob == 0.0 and logprobs[-1].top == ()
    assert closed >= 3


def test_rows_beside_a_closed_one_go_on_unchanged(engine: Engine[LoadedModel]) -> None:
    beside = request(json_schema_constraint({"type": "array", "items": {}}), 150, seed=9)
    alone = outcome(engine.submit(beside))[0]
    streams = [engine.submit(beside)]
    streams += [engine.submit(request(LONG_TEXT, 30 + n, seed=n)) for n in range(8)]
    texts = [outcome(stream)[0] for stream in streams]
    assert texts[0] == alone
    for text in texts[1:]:
        jsonschema.validate(json.loads(text), SCHEMAS["required"])


def test_all_completions_of_one_request_are_closed(engine: Engine[LoadedModel]) -> None:
    texts = [""] * 4
    for event in engine.submit(request(LONG_TEXT, 40, n=4)):
        if isinstance(event, Delta):
            texts[event.index] += event.text
    for text in texts:
        jsonschema.validate(json.loads(text), SCHEMAS["required"])


def test_a_text_without_a_known_ending_is_withheld_when_it_is_cut(
    engine: Engine[LoadedModel],
) -> None:
    constraint = json_schema_constraint({"type": "array", "items": {}, "minItems": 100_000})
    assert first_ending(engine.index(constraint), constraint) is None
    with pytest.raises(BudgetError, match=r"after 30 of max_tokens=30 .* raise max_tokens"):
        outcome(engine.submit(request(constraint, 30)))
    assert outcome(engine.submit(request(LONG_TEXT, 60)))[0]


def test_long_strings_leave_room_for_the_model_to_fill_the_rest(
    engine: Engine[LoadedModel],
) -> None:
    """The first string is closed while tokens are left: later values are not all the shortest."""
    later = set()
    for seed in range(12):
        text, _, _ = outcome(engine.submit(request(LONG_TEXT, 120, seed)))
        later.add(json.loads(text)["b"])
    assert len(later) > 3


def test_an_ending_that_was_lost_for_want_of_time_is_found_again(
    engine: Engine[LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = json_schema_constraint({"type": "array", "items": {"type": "object"}, "minItems": 1})
    texts = [outcome(engine.submit(request(lists, 200, seed)))[0] for seed in range(2)]
    # As on a machine where everything takes a hundred times as long.
    monkeypatch.setattr(budget, "MAX_POINTS", 1)
    monkeypatch.setattr(budget, "CLOSE_FIT_POINTS", 1)
    texts += [outcome(engine.submit(request(lists, 200, seed)))[0] for seed in range(8)]
    for text in texts:
        assert isinstance(json.loads(text), list)
