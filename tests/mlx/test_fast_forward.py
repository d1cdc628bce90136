"""Forced tokens are taken without asking the model, and nobody can tell from the text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litellm_mlx.engine import batch
from litellm_mlx.engine.engine import Engine, EngineStats
from litellm_mlx.grammar.constraint import json_schema_constraint, regex_constraint
from litellm_mlx.models.loader import LoadedModel
from litellm_mlx.types import (
    Constraint,
    Delta,
    Done,
    SamplingParams,
    Thinking,
    TokenLogprob,
)
from tests.tiny_engine import collect, request, run, start
from tests.tiny_model import ROTATING, make_tiny_model


def record(*names: str, **extra: Any) -> Constraint:
    """Objects with long names and short values: most of the text is forced."""
    text = {"type": "string", "maxLength": 6}
    properties = {name: text for name in names} | extra
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return json_schema_constraint({**schema, "required": list(properties)})


RECORDS = (
    record("name of the person", "place of birth"),
    record("value", kind={"enum": ["a long constant that is told by one letter", "b"]}),
    record("items", "label", number={"type": "integer"}),
)
WHOLE = json_schema_constraint({"const": {"all of it": "is forced", "and": [1, 2, 3]}})


@pytest.fixture(scope="module")
def engine(tiny_model_dir: Path) -> Iterator[Engine[LoadedModel]]:
    engine = start(tiny_model_dir)
    yield engine
    engine.shutdown()


def spent(engine: Engine[LoadedModel], before: EngineStats) -> tuple[int, int, int]:
    """Passes, completion tokens and forced tokens since `before`."""
    now = engine.stats()
    return (
        now.num_passes - before.num_passes,
        now.num_completion_tokens - before.num_completion_tokens,
        now.num_forced_tokens - before.num_forced_tokens,
    )


def test_forced_tokens_cost_no_passes(engine: Engine[LoadedModel]) -> None:
    for number, constraint in enumerate(RECORDS):
        before = engine.stats()
        text, done = run(engine, request(number, constraint))
        json.loads(text)
        num_passes, num_tokens, num_forced = spent(engine, before)
        assert num_tokens == done.usage.completion_tokens
        assert num_forced == done.num_forced_tokens > num_tokens / 3
        # One pass for each token that was not forced, or that a pass had no room for.
        assert num_passes <= num_tokens - num_forced + 1


def test_many_tokens_in_a_pass_give_the_text_of_one_token_in_a_pass(
    engine: Engine[LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [request(number, RECORDS[number % 3], num_top_logprobs=0) for number in range(9)]
    together = [collect(stream) for stream in [engine.submit(one) for one in asked]]
    alone = [run(engine, one) for one in asked]
    monkeypatch.setattr(batch, "MAX_TOKENS_PER_PASS", 1)
    before = engine.stats()
    step_by_step = [collect(stream) for stream in [engine.submit(one) for one in asked]]
    num_passes, _, _ = spent(engine, before)
    longest = max(done.usage.completion_tokens for _, done in step_by_step)
    assert num_passes > 0.8 * longest  # the last forced tokens of a text go through no pass
    texts = [text for text, _ in step_by_step]
    assert [text for text, _ in alone] == texts
    assert [text for text, _ in together] == texts


def test_a_batch_needs_few_passes_too(engine: Engine[LoadedModel]) -> None:
    asked = [request(number, RECORDS[0]) for number in range(8)]
    before = engine.stats()
    for stream in [engine.submit(one) for one in asked]:
        collect(stream)
    num_passes, num_tokens, num_forced = spent(engine, before)
    assert num_forced > num_tokens / 3
    assert num_passes < 0.7 * num_tokens / len(asked)


def test_free_rows_beside_constrained_ones_keep_their_text(engine: Engine[LoadedModel]) -> None:
    free = [request(number, None, max_tokens=40) for number in range(4)]
    alone = [run(engine, one)[0] for one in free]
    constrained = [request(number, RECORDS[number % 3]) for number in range(4)]
    streams = [engine.submit(one) for one in [*free, *constrained]]
    together = [collect(stream)[0] for stream in streams]
    assert together[:4] == alone


def test_a_text_without_any_choice_needs_no_pass_at_all(engine: Engine[LoadedModel]) -> None:
    before = engine.stats()
    text, done = run(engine, request(1, WHOLE, n=3))
    assert text == '{"all of it": "is forced", "and": [1, 2, 3]}' * 3
    assert spent(engine, before)[0] == 0
    assert done.num_forced_tokens == done.usage.completion_tokens


def test_seeded_text_is_the_same_alone_and_in_a_batch(engine: Engine[LoadedModel]) -> None:
    asked = [
        request(i, RECORDS[i % 3], sampling=SamplingParams(temperature=1, seed=i)) for i in range(6)
    ]
    together = [collect(stream)[0] for stream in [engine.submit(one) for one in asked]]
    assert together == [run(engine, one)[0] for one in asked]


def test_forced_tokens_are_certain(engine: Engine[LoadedModel]) -> None:
    logprobs: list[TokenLogprob] = []
    text, done = "", None
    for event in engine.submit(request(2, RECORDS[0], num_top_logprobs=2)):
        if isinstance(event, Delta):
            logprobs += event.logprobs
            text += event.text
        elif isinstance(event, Done):
            done = event
    assert done is not None
    assert b"".join(logprob.token_bytes for logprob in logprobs).decode() == text
    certain = [logprob for logprob in logprobs if logprob.logprob == 0 and len(logprob.top) == 1]
    assert len(certain) >= done.num_forced_tokens
    assert all(one.top == ((one.token_id, one.token_bytes, 0.0),) for one in certain)


def test_the_models_own_probabilities_are_asked_of_the_model(engine: Engine[LoadedModel]) -> None:
    before = engine.stats()
    _, done = run(engine, request(2, RECORDS[0], num_top_logprobs=0, raw_logprobs=True))
    assert done.num_forced_tokens == 0
    num_passes, num_tokens, _ = spent(engine, before)
    assert num_passes >= num_tokens


def test_the_end_of_a_thought_is_forced_once_it_has_begun(engine: Engine[LoadedModel]) -> None:
    end = (40, 41, 42, 43)
    thinking = Thinking(end, budget_tokens=5)
    constraint = regex_constraint("a long constant and ([0-9])")
    asked = request(1, constraint, thinking=thinking, opens_reasoning=True)
    text, done = run(engine, asked)
    assert text.startswith("a long constant and ")
    assert done.num_forced_tokens >= len(end) - 1


def test_it_can_be_switched_off(tiny_model_dir: Path) -> None:
    engine = start(tiny_model_dir, fast_forward=False)
    before = engine.stats()
    text, done = run(engine, request(0, RECORDS[0]))
    json.loads(text)
    num_passes, num_tokens, num_forced = spent(engine, before)
    assert num_forced == done.num_forced_tokens == 0
    assert num_passes >= num_tokens
    engine.shutdown()


def test_rows_that_cannot_be_packed_take_their_forced_tokens_one_by_one(tmp_path: Path) -> None:
    path = make_tiny_model(tmp_path / "gemma", **ROTATING)
    engine = start(path)
    asked = [request(number, RECORDS[number % 3]) for number in range(4)]
    alone = [run(engine, one)[0] for one in asked]
    before = engine.stats()
    together = [collect(stream)[0] for stream in [engine.submit(one) for one in asked]]
    assert together == alone
    assert spent(engine, before)[2] > 0
    engine.shutdown()
