"""Prompts that begin alike are prefilled once, and nobody can tell from the text."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litellm_mlx.config import EngineConfig
from litellm_mlx.engine.engine import Engine
from litellm_mlx.engine.prefill import PrefillBatch
from litellm_mlx.engine.sequence import RunningRequest
from litellm_mlx.engine.stream import Channel
from litellm_mlx.engine.worker import Worker
from litellm_mlx.errors import EngineError, PromptCacheError
from litellm_mlx.kvcache.prefix_cache import PrefixCache
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
from tests.tiny_engine import start
from tests.tiny_model import ROTATING, make_tiny_model

STOP = 2  # <|im_end|>
TEXT_TOKENS = range(3, 300)
NO_STOP = ((0, -100.0), (STOP, -100.0))


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


def test_a_prompt_that_is_nearly_through_does_not_wait_for_a_long_one(
    cold: Engine[LoadedModel],
) -> None:
    def prefill(worker: Worker) -> list[int]:
        model = cold.model().model
        batch = PrefillBatch(model, PrefixCache(model, 0, ()))
        long, short = (request(some_tokens(seed, n)) for seed, n in ((1, 301), (2, 41)))
        batch.add([RunningRequest(long, Channel()), RunningRequest(short, Channel())])
        counts = [batch.step(512), batch.step(512)]  # the second time one has nothing left
        batch.keep([0])
        return [*counts, batch.step(200), batch.step(200)]

    assert cold.call(prefill) == [80, 0, 200, 60]


# layers whose state cannot be cut -----------------------------------------------------------------

# By kind of cache: what a model of this type has, and what its config needs for that.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "rotating and plain": (ROTATING["model_type"], ROTATING["config"]),
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


# sessions -----------------------------------------------------------------------------------------


def test_a_session_outlives_the_others(tiny_model_dir: Path) -> None:
    engine = start(tiny_model_dir, prefix_cache_bytes=400_000)
    prompt = some_tokens(1, 300)
    cached(engine, prompt, cache_key="me")
    for seed in range(10):
        cached(engine, some_tokens(10 + seed, 300))
    assert cached(engine, (*prompt, *some_tokens(2, 5))) == 300
    assert engine.stats().prefix_bytes <= 400_000
    engine.shutdown()


@pytest.fixture(scope="module", params=["plain", *KINDS])
def any_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model_type, config = KINDS.get(request.param, ("llama", {}))
    path = tmp_path_factory.mktemp("any") / "model"
    return make_tiny_model(path, model_type=model_type, config=config)


def save(engine: Engine[LoadedModel], key: str, path: Path) -> None:
    engine.call(lambda worker: worker.save_session(key, path))


def load(engine: Engine[LoadedModel], path: Path) -> str:
    return engine.call(lambda worker: worker.load_session(path))


def test_a_session_goes_to_disk_and_back(any_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "me.safetensors"
    first = start(any_dir)
    prompt = message(1, 80)
    asked = request(prompt, 20, cache_key="me", num_top_logprobs=0)
    answered = [logprob.token_id for logprob in logprobs(first, asked)]
    save(first, "me", path)
    following = request((*prompt, *answered, *some_tokens(2, 20)))
    expected = run(first, following)
    first.shutdown()
    other = start(any_dir)
    assert load(other, path) == "me"
    texts, done = run(other, following)
    assert texts == expected[0]
    assert done.usage.cached_tokens == expected[1].usage.cached_tokens >= 99
    again = tmp_path / "again.safetensors"
    save(other, "me", again)
    assert again.read_bytes() == path.read_bytes()
    other.shutdown()


def test_mlx_lm_reads_the_file(any_dir: Path, tmp_path: Path) -> None:
    from mlx_lm import stream_generate
    from mlx_lm.models.cache import load_prompt_cache
    from mlx_lm.sample_utils import make_logits_processors

    path = tmp_path / "me.safetensors"
    engine = start(any_dir)
    prompt, question = some_tokens(1, 80), list(some_tokens(2, 20))
    asked = request(prompt, 20, cache_key="me", num_top_logprobs=0)
    answered = [logprob.token_id for logprob in logprobs(engine, asked)]
    save(engine, "me", path)
    cache, metadata = load_prompt_cache(str(path), return_metadata=True)
    tokens = json.loads(metadata["tokens"])
    assert (*prompt, *answered)[: len(tokens)] == tuple(tokens) and len(tokens) >= 99
    rest = [*prompt, *answered, *question][len(tokens) :]
    following = request((*tokens, *rest), num_top_logprobs=0)
    expected = [logprob.token_id for logprob in logprobs(engine, following)]
    engine.shutdown()
    loaded = load_model(parse_model_name(str(any_dir)), EngineConfig())
    responses = stream_generate(
        *(loaded.model, loaded.tokenizer, rest),
        max_tokens=20,
        prompt_cache=cache,
        logits_processors=make_logits_processors(logit_bias=dict(NO_STOP)),
    )
    assert [response.token for response in responses] == expected


def test_what_cannot_be_saved_or_loaded_is_told(
    tiny_model_dir: Path, tmp_path: Path, warm: Engine[LoadedModel]
) -> None:
    cached(warm, some_tokens(1, 80), cache_key="me")
    path = tmp_path / "me.safetensors"
    with pytest.raises(PromptCacheError, match="nothing is held of prompt_cache_key 'you'"):
        save(warm, "you", path)
    with pytest.raises(PromptCacheError, match=r"must end in \.safetensors"):
        save(warm, "me", tmp_path / "me.bin")
    with pytest.raises(PromptCacheError, match="cannot write"):
        save(warm, "me", tmp_path / "none" / "me.safetensors")
    with pytest.raises(PromptCacheError, match="cannot read"):
        load(warm, path)
    save(warm, "me", path)
    assert [file.name for file in tmp_path.iterdir()] == ["me.safetensors"]
    whole = path.read_bytes()
    for cut in (0, 4, 100, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(PromptCacheError, match=r"not complete|not a cache"):
            load(warm, path)
    path.write_bytes(whole)
    small = start(tiny_model_dir, prefix_cache_bytes=30_000)
    with pytest.raises(PromptCacheError, match="40,960 bytes, and sessions may have half of"):
        load(small, path)
    small.shutdown()
    strange = start(make_tiny_model(tmp_path / "strange", seed=1))
    with pytest.raises(PromptCacheError, match="another model"):
        load(strange, path)
    strange.shutdown()
    with pytest.raises(EngineError):
        load(strange, path)


def test_a_call_that_fails_fails_alone(warm: Engine[LoadedModel]) -> None:
    with pytest.raises(ZeroDivisionError):
        warm.call(lambda worker: 1 // 0)
    assert cached(warm, some_tokens(1, 80)) == 0


def test_litellm_names_a_session_and_counts_what_is_cached(tiny: str, tmp_path: Path) -> None:
    import litellm

    import litellm_mlx

    messages = [
        {"role": "system", "content": "You answer in one word, and never name this session."},
        {"role": "user", "content": "What is the capital of France?"},
    ]
    options: dict[str, Any] = {"max_tokens": 8, "temperature": 0, "prompt_cache_key": "capitals"}
    first = litellm.completion(tiny, messages, **options)
    path = tmp_path / "capitals.safetensors"
    litellm_mlx.save_cache(tiny, "capitals", path)
    assert litellm_mlx.load_cache(tiny, path) == "capitals"
    again = litellm.completion(tiny, messages, **options)
    usage = again.usage
    assert usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens - 1
    assert again.choices[0].message.content == first.choices[0].message.content
    chunks = list(litellm.completion(tiny, messages, stream=True, **options))
    whole = litellm.stream_chunk_builder(chunks)
    assert whole.usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens - 1
