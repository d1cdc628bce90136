"""Tokens guessed from the prompt and the text so far save passes, and nobody can tell otherwise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litellm_mlx.engine.batch import MAX_GUESSES_BESIDE_STREAMS, DecodeBatch
from litellm_mlx.engine.engine import Engine
from litellm_mlx.grammar.constraint import json_schema_constraint
from litellm_mlx.models.loader import LoadedModel
from litellm_mlx.types import Delta, SamplingParams
from tests.tiny_architectures import make_architecture
from tests.tiny_engine import collect, request, run, run_together, start
from tests.tiny_model import ROTATING, make_tiny_model

WORDS = {"enum": ["the same", "another", "a third"]}
# Random weights choose at random, but greedily the same after the same: they repeat themselves.
LIST = json_schema_constraint({"type": "array", "items": WORDS, "minItems": 30, "maxItems": 30})
RECORD = json_schema_constraint(
    {
        "type": "object",
        "properties": {name: {"type": "string", "maxLength": 8} for name in "abcdefgh"},
        "required": list("abcdefgh"),
        "additionalProperties": False,
    }
)
CONSTRAINTS = (LIST, RECORD)


@pytest.fixture(scope="module")
def engine(tiny_model_dir: Path) -> Iterator[Engine[LoadedModel]]:
    engine = start(tiny_model_dir)
    yield engine
    engine.shutdown()


@pytest.fixture(scope="module")
def plain(tiny_model_dir: Path) -> Iterator[Engine[LoadedModel]]:
    engine = start(tiny_model_dir, prompt_lookup=False)
    yield engine
    engine.shutdown()


def test_right_guesses_save_passes(engine: Engine[LoadedModel], plain: Engine[LoadedModel]) -> None:
    befores = engine.stats(), plain.stats()
    asked = request(1, LIST, max_tokens=400)
    assert run(engine, asked)[0] == run(plain, asked)[0]
    (now, before), (plain_now, plain_before) = zip(
        (engine.stats(), plain.stats()), befores, strict=True
    )
    num_right = now.num_right_guesses - before.num_right_guesses
    assert 0 < num_right <= now.num_guessed_tokens - before.num_guessed_tokens
    num_passes = now.num_passes - before.num_passes
    assert num_passes < 0.8 * (plain_now.num_passes - plain_before.num_passes)
    assert plain_now.num_guessed_tokens == 0


def test_the_text_is_the_same_alone_and_in_a_batch(
    engine: Engine[LoadedModel], plain: Engine[LoadedModel]
) -> None:
    asked = [request(i, CONSTRAINTS[i % 2], max_tokens=300) for i in range(8)]
    expected = [run(plain, one)[0] for one in asked]
    assert [run(engine, one)[0] for one in asked] == expected
    assert run_together(engine, asked) == expected


def test_seeded_text_is_the_same(engine: Engine[LoadedModel], plain: Engine[LoadedModel]) -> None:
    before = engine.stats()
    asked = [
        request(
            i,
            CONSTRAINTS[i % 2],
            sampling=SamplingParams(temperature=0.3, seed=i, frequency_penalty=0.2),
            max_tokens=300,
        )
        for i in range(6)
    ]
    expected = [run(plain, one)[0] for one in asked]
    assert run_together(engine, asked) == expected
    assert engine.stats().num_right_guesses > before.num_right_guesses


def test_free_rows_beside_it_keep_their_text(
    engine: Engine[LoadedModel], plain: Engine[LoadedModel]
) -> None:
    asked = [request(i, LIST if i % 2 else None, max_tokens=60 + 300 * (i % 2)) for i in range(6)]
    assert run_together(engine, asked) == [run(plain, one)[0] for one in asked]


def test_passes_stay_short_where_someone_reads_a_row_that_is_not_guessed(
    engine: Engine[LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    guesses: list[list[list[int]]] = []
    dispatch = DecodeBatch.dispatch

    def noting(batch: DecodeBatch, *args: Any) -> None:
        dispatch(batch, *args)
        assert batch.flight is not None
        guesses.append(batch.flight.guesses)

    monkeypatch.setattr(DecodeBatch, "dispatch", noting)
    endless = SamplingParams(temperature=0, logit_bias=((0, -100.0), (2, -100.0)))
    free = request(1, None, sampling=endless, is_streamed=True, max_tokens=150)
    asked = [free, *(request(i, LIST, max_tokens=400) for i in (2, 3))]
    run_together(engine, asked)
    beside = [sum(map(len, rows)) for rows in guesses if len(rows) == 3]
    assert 0 < max(beside) <= MAX_GUESSES_BESIDE_STREAMS
    guesses.clear()
    run_together(engine, asked[1:])
    assert max(len(row) for rows in guesses for row in rows) > MAX_GUESSES_BESIDE_STREAMS // 2


def test_what_is_cached_of_an_answer_is_what_the_model_has_seen(
    engine: Engine[LoadedModel], tiny_model_dir: Path
) -> None:
    cold = start(tiny_model_dir, prefix_cache_bytes=0)
    for number, constraint in enumerate(CONSTRAINTS):
        first = request(50 + number, constraint, num_top_logprobs=0, max_tokens=300)
        answer: list[int] = []
        for event in engine.submit(first):
            if isinstance(event, Delta):
                answer += [logprob.token_id for logprob in event.logprobs]
        prompt = (*first.prompt_token_ids, *answer, 5, 6, 7)
        second = request(0, constraint, prompt=prompt, max_tokens=300)
        text, done = run(engine, second)
        assert done.usage.cached_tokens > len(first.prompt_token_ids) + 5
        assert text == run(cold, second)[0]
    cold.shutdown()


def test_log_probabilities_are_those_of_one_pass_per_token(
    engine: Engine[LoadedModel], plain: Engine[LoadedModel]
) -> None:
    asked = request(3, LIST, num_top_logprobs=1, max_tokens=300)
    got, expected = (
        [
            (one.token_id, one.logprob)
            for event in each.submit(asked)
            if isinstance(event, Delta)
            for one in event.logprobs
        ]
        for each in (engine, plain)
    )
    assert [token for token, _ in got] == [token for token, _ in expected]
    assert [number for _, number in got] == pytest.approx([n for _, n in expected], abs=1e-3)


def test_a_budget_that_ends_among_guesses_is_kept(engine: Engine[LoadedModel]) -> None:
    for max_tokens in range(30, 60):
        text, done = run(engine, request(1, RECORD, max_tokens=max_tokens + 30))
        assert set(json.loads(text)) == set("abcdefgh")
        assert done.usage.completion_tokens <= max_tokens + 30


def test_rows_that_cannot_be_packed_guess_nothing(tmp_path: Path) -> None:
    engine = start(make_tiny_model(tmp_path / "gemma", **ROTATING))
    text, _ = collect(engine.submit(request(1, LIST, max_tokens=400)))
    assert len(json.loads(text)) == 30
    assert engine.stats().num_guessed_tokens == 0
    engine.shutdown()


@pytest.mark.parametrize("kind", ["gemma2", "gpt-bigcode"])
def test_a_lone_row_of_a_model_that_cannot_pack_is_guessed_too(kind: str, tmp_path: Path) -> None:
    """Beside others it is not: no pass brings its rows different numbers of tokens."""
    if kind == "gemma2":
        config = {"query_pre_attn_scalar": 16, "attn_logit_softcapping": 50.0}
        path = make_tiny_model(tmp_path / kind, model_type=kind, config=config)
    else:
        path = make_architecture(tmp_path / kind, kind)
    engine, without = start(path), start(path, prompt_lookup=False)
    try:
        assert not engine.call(lambda worker: worker._decode.can_pack)
        asked = [request(i, LIST, max_tokens=400) for i in range(3)]
        expected = [run(without, one)[0] for one in asked]
        assert [run(engine, one)[0] for one in asked] == expected
        assert engine.stats().num_right_guesses > 0
        assert engine.stats().num_passes < without.stats().num_passes
        assert run_together(engine, asked) == expected
    finally:
        engine.shutdown()
        without.shutdown()
