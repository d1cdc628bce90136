"""Prompts that begin alike are prefilled once, and nobody can tell from the text."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litellm_mlx.config import EngineConfig
from litellm_mlx.engine.engine import Engine
from litellm_mlx.models.loader import LoadedModel, load_model
from litellm_mlx.models.names import parse_model_name
from litellm_mlx.types import (
    Constraint,
    Delta,
    Done,
    GenerationRequest,
    SamplingParams,
    TokenLogprob,
)
from tests.tiny_model import make_tiny_model

STOP = 2  # <|im_end|>
TEXT_TOKENS = range(3, 300)
NO_STOP = ((0, -100.0), (STOP, -100.0))


def start(path: Path, **config: Any) -> Engine[LoadedModel]:
    settings = EngineConfig(**config)
    spec = parse_model_name(str(path))
    engine = Engine(lambda: load_model(spec, settings), settings, name="tiny")
    engine.model(timeout_s=60)
    return engine


@pytest.fixture(scope="module")
def cold(tiny_model_dir: Path) -> Iterator[Engine[LoadedModel]]:
    engine = start(tiny_model_dir, prefix_cache_bytes=0)
    yield engine
    engine.shutdown()


@pytest.fixture
def warm(tiny_model_dir: Path) -> Iterator[Engine[LoadedModel]]:
    engine = start(tiny_model_dir)
    yield engine
    engine.shutdown()


def some_tokens(seed: int, count: int) -> tuple[int, ...]:
    rng = random.Random(seed)
    return tuple(rng.choice(TEXT_TOKENS) for _ in range(count))


def request(prompt: tuple[int, ...], max_tokens: int = 20, **options: Any) -> GenerationRequest:
    sampling = options.pop("sampling", SamplingParams(temperature=0, logit_bias=NO_STOP))
    return GenerationRequest(
        prompt, max_tokens, sampling=sampling, deadline_s=time.monotonic() + 60, **options
    )


def run(engine: Engine[LoadedModel], asked: GenerationRequest) -> tuple[list[str], Done]:
    """The completions' texts and the closing event."""
    texts, done = [""] * asked.n, None
    for event in engine.submit(asked):
        if isinstance(event, Delta):
            texts[event.index] += event.text
        elif isinstance(event, Done):
            done = event
    assert done is not None
    return texts, done


def logprobs(engine: Engine[LoadedModel], asked: GenerationRequest) -> list[TokenLogprob]:
    return [
        logprob
        for event in engine.submit(asked)
        if isinstance(event, Delta)
        for logprob in event.logprobs
    ]


def cached(engine: Engine[LoadedModel], prompt: tuple[int, ...], **options: Any) -> int:
    return run(engine, request(prompt, 1, **options))[1].usage.cached_tokens


def test_cached_tokens_are_exactly_the_longest_prefix(warm: Engine[LoadedModel]) -> None:
    first = some_tokens(1, 700)
    assert cached(warm, first) == 0
    assert cached(warm, first) == 699  # the last one is always fed
    assert cached(warm, first[:300]) == 299
    assert cached(warm, (*first[:500], *some_tokens(2, 100))) == 500
    assert cached(warm, (*first[:500], *some_tokens(2, 50), 7)) == 550
    assert cached(warm, some_tokens(3, 10)) <= 1


def test_only_the_rest_is_prefilled(warm: Engine[LoadedModel]) -> None:
    prompt = some_tokens(1, 700)
    cached(warm, prompt)
    before = warm.stats().num_prefilled_tokens
    cached(warm, (*prompt, *some_tokens(2, 30)))
    assert warm.stats().num_prefilled_tokens - before == 29  # and one is fed


@pytest.mark.parametrize("seed", range(4))
def test_greedy_text_is_the_same_cold_and_warm(
    cold: Engine[LoadedModel], warm: Engine[LoadedModel], seed: int
) -> None:
    rng = random.Random(seed)
    stored: list[tuple[int, ...]] = [()]
    num_cached = 0
    for i in range(15):
        known = rng.choice(stored)
        prompt = (*known[: rng.randrange(len(known) + 1)], *some_tokens(100 * seed + i, 40))
        prompt = prompt[: rng.randrange(1, len(prompt) + 1)]
        expected, _ = run(cold, request(prompt))
        texts, done = run(warm, request(prompt))
        assert texts == expected
        num_cached += done.usage.cached_tokens
        stored.append(prompt)
    assert num_cached > 0


def test_requests_at_the_same_time_with_prefixes_of_all_lengths(
    cold: Engine[LoadedModel], warm: Engine[LoadedModel]
) -> None:
    rng = random.Random(9)
    base = some_tokens(1, 900)
    run(warm, request(base))
    prompts = [(*base[: rng.randrange(900)], *some_tokens(i, rng.randrange(60))) for i in range(24)]
    prompts = [prompt or (5,) for prompt in prompts]
    expected = [run(cold, request(prompt))[0] for prompt in prompts]
    streams = [warm.submit(request(prompt)) for prompt in prompts]
    got = [
        ["".join(event.text for event in stream if isinstance(event, Delta))] for stream in streams
    ]
    assert got == expected


def test_the_next_turn_of_a_chat_finds_the_answer_cached(warm: Engine[LoadedModel]) -> None:
    prompt = some_tokens(1, 50)
    answered = [lp.token_id for lp in logprobs(warm, request(prompt, 30, num_top_logprobs=0))]
    assert len(answered) == 30
    # The last token of an answer has not been through the model.
    assert cached(warm, (*prompt, *answered, *some_tokens(2, 10))) in (79, 80)


@pytest.mark.parametrize("fast_forward", [True, False])
def test_an_answer_that_its_budget_closed_is_stored_as_it_reads(
    tiny_model_dir: Path, cold: Engine[LoadedModel], fast_forward: bool
) -> None:
    engine = start(tiny_model_dir, fast_forward=fast_forward)
    schema = '{"type":"array","items":{"type":"string"}}'
    constraint = Constraint("json_schema", schema)
    prompt = some_tokens(1, 50)
    for max_tokens in range(8, 16):
        asked = request(prompt, max_tokens, constraint=constraint, num_top_logprobs=0)
        answered = [lp.token_id for lp in logprobs(engine, asked)]
        following = request((*prompt, *answered, *some_tokens(2, 10)))
        assert run(engine, following)[0] == run(cold, following)[0]
    engine.shutdown()


def test_all_completions_of_a_request_share_one_prefill(warm: Engine[LoadedModel]) -> None:
    prompt = some_tokens(1, 300)
    sampled = SamplingParams(temperature=1.0, seed=1)
    _, done = run(warm, request(prompt, n=8, sampling=sampled))
    assert warm.stats().num_prefilled_tokens == 299
    assert done.usage.cached_tokens == 0
    _, done = run(warm, request(prompt, n=8, sampling=sampled))
    assert warm.stats().num_prefilled_tokens == 299
    assert done.usage.cached_tokens == 299


def test_bytes_are_those_of_the_tokens_stored(warm: Engine[LoadedModel]) -> None:
    bytes_per_token = 2 * 2 * 2 * 16 * 4  # layers, keys and values, heads, dim, float32
    prompt = some_tokens(1, 400)
    cached(warm, prompt)
    assert warm.stats().prefix_bytes == 400 * bytes_per_token
    cached(warm, (*prompt[:200], *some_tokens(2, 101)))
    assert warm.stats().prefix_bytes == (400 + 101) * bytes_per_token


def test_the_limit_holds_and_zero_is_off(tiny_model_dir: Path, cold: Engine[LoadedModel]) -> None:
    engine = start(tiny_model_dir, prefix_cache_bytes=200_000)
    for seed in range(30):
        prompt = some_tokens(seed, 100)
        assert run(engine, request(prompt))[0] == run(cold, request(prompt))[0]
        assert 0 < engine.stats().prefix_bytes <= 200_000
    engine.shutdown()
    prompt = some_tokens(1, 100)
    run(cold, request(prompt))
    assert run(cold, request(prompt))[1].usage.cached_tokens == 0
    assert cold.stats().prefix_bytes == 0


# layers whose state cannot be cut -----------------------------------------------------------------

# By kind of cache: what a model of this type has, and what its config needs for that.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "rotating and plain": (
        "gemma3_text",
        {"sliding_window": 48, "sliding_window_pattern": 2, "query_pre_attn_scalar": 16},
    ),
    "recurrent and plain": (
        "lfm2",
        {
            **{"norm_eps": 1e-5, "conv_bias": False, "conv_L_cache": 3, "block_dim": 64},
            **{"block_multiple_of": 8, "block_ffn_dim_multiplier": 1.0},
            **{"block_auto_adjust_ff_dim": False, "full_attn_idxs": [1]},
        },
    ),
    "recurrent": (
        "mamba2",
        {
            **{"num_heads": 8, "head_dim": 16, "state_size": 16, "layer_norm_epsilon": 1e-5},
            **{"conv_kernel": 4, "n_groups": 1, "use_bias": False, "use_conv_bias": True},
            **{"time_step_limit": [0.0, 100.0], "time_step_rank": "auto"},
        },
    ),
    "several in one": (
        "falcon_h1",
        {
            **{"mamba_d_head": 16, "mamba_d_ssm": 128, "mamba_d_state": 16, "mamba_n_heads": 8},
            **{"ssm_multipliers": [1.0] * 5, "rope_theta": 10000.0},
        },
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def other_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model_type, config = KINDS[request.param]
    path = tmp_path_factory.mktemp("other") / "model"
    return make_tiny_model(path, model_type=model_type, config=config)


@pytest.fixture(scope="module")
def other_cold(other_dir: Path) -> Iterator[Engine[LoadedModel]]:
    engine = start(other_dir, prefix_cache_bytes=0)
    yield engine
    engine.shutdown()


@pytest.fixture
def other_warm(other_dir: Path) -> Iterator[Engine[LoadedModel]]:
    engine = start(other_dir)
    yield engine
    engine.shutdown()


def message(seed: int, count: int) -> tuple[int, ...]:
    return (*some_tokens(seed, count - 1), STOP)


def test_a_prompt_begins_at_the_last_message_that_it_shares(
    other_warm: Engine[LoadedModel],
) -> None:
    system, demo = message(1, 90), message(2, 40)
    assert cached(other_warm, (*system, *demo, *some_tokens(3, 20))) == 0
    assert cached(other_warm, (*system, *demo, *some_tokens(4, 20))) == 130
    assert cached(other_warm, (*system, *some_tokens(5, 20))) == 90
    assert cached(other_warm, (*system[:50], *some_tokens(5, 20))) == 0
    assert cached(other_warm, (*system, *demo, *some_tokens(3, 20))) == 149


def test_only_the_last_messages_are_kept(other_warm: Engine[LoadedModel]) -> None:
    messages = [message(seed, 10) for seed in range(12)]
    assert cached(other_warm, (*sum(messages, ()), 5, 6)) == 0
    assert cached(other_warm, (*sum(messages[:4], ()), 7, 8)) == 0
    assert cached(other_warm, (*sum(messages[:5], ()), 7, 8)) == 50


def test_the_next_turn_begins_after_the_answer(
    other_cold: Engine[LoadedModel], other_warm: Engine[LoadedModel]
) -> None:
    prompt = (*message(1, 60), *some_tokens(2, 20))
    asked = request(prompt, 30, num_top_logprobs=0)
    answered = [logprob.token_id for logprob in logprobs(other_warm, asked)]
    following = request((*prompt, *answered, *some_tokens(3, 20)))
    texts, done = run(other_warm, following)
    assert texts == run(other_cold, following)[0]
    assert done.usage.cached_tokens in (109, 110)


def test_greedy_text_is_the_same_cold_and_warm_whatever_the_layers(
    other_cold: Engine[LoadedModel], other_warm: Engine[LoadedModel]
) -> None:
    rng = random.Random(3)
    num_cached = 0
    for i in range(6):
        prompts = []
        for j in range(4):
            parts = [message(rng.randrange(2), 60 + 10 * k) for k in range(rng.randrange(4))]
            prompts.append((*sum(parts, ()), *some_tokens(100 * i + j, rng.randrange(1, 40))))
        expected = [run(other_cold, request(prompt))[0] for prompt in prompts]
        streams = [other_warm.submit(request(prompt)) for prompt in prompts]
        for stream, texts in zip(streams, expected, strict=True):
            events = list(stream)
            assert ["".join(e.text for e in events if isinstance(e, Delta))] == texts
            num_cached += sum(e.usage.cached_tokens for e in events if isinstance(e, Done))
    assert num_cached > 0


def test_their_bytes_stay_within_the_limit(
    other_dir: Path, other_cold: Engine[LoadedModel]
) -> None:
    engine = start(other_dir, prefix_cache_bytes=300_000)
    for seed in range(12):
        prompt = (*message(seed % 2, 50), *some_tokens(seed, 50))
        assert run(engine, request(prompt))[0] == run(other_cold, request(prompt))[0]
        assert engine.stats().prefix_bytes <= 300_000
    engine.shutdown()
