"""KV caches of 8 and 4 bits: smaller, close, and batched like any other."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from litellm_mlx.config import EngineConfig
from litellm_mlx.engine.engine import Engine
from litellm_mlx.errors import ModelLoadError
from litellm_mlx.kvcache.cost import measure_cost
from litellm_mlx.kvcache.layers import BatchCache
from litellm_mlx.kvcache.quantized import QuantizedRowCache
from litellm_mlx.kvcache.row_cache import RowLayout
from litellm_mlx.models.loader import LoadedModel, load_model
from litellm_mlx.models.names import parse_model_name
from litellm_mlx.types import Constraint, Delta, Done, GenerationRequest, SamplingParams
from tests.tiny_engine import start
from tests.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def wide_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with heads of 64 numbers."""
    return make_tiny_model(tmp_path_factory.mktemp("wide") / "model", hidden_size=256)


def loaded(path: Path, **settings: Any) -> LoadedModel:
    return load_model(parse_model_name(str(path)), EngineConfig(**settings))


def prompt(num_tokens: int, seed: int) -> tuple[int, ...]:
    rng = random.Random(seed)
    return tuple(rng.randrange(20, 300) for _ in range(num_tokens))


def request(prompt_token_ids: tuple[int, ...], **options: Any) -> GenerationRequest:
    return GenerationRequest(
        prompt_token_ids,
        24,
        sampling=SamplingParams(temperature=0),
        deadline_s=time.monotonic() + 60,
        **options,
    )


def run(engine: Engine[LoadedModel], asked: GenerationRequest) -> tuple[str, Done]:
    text = ""
    for event in engine.submit(asked):
        if isinstance(event, Delta):
            text += event.text
    assert isinstance(event, Done)
    return text, event


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.float16])
@pytest.mark.parametrize("size", [32, 64, 96, 128])
@pytest.mark.parametrize("bits", [4, 8])
def test_what_is_fetched_is_what_mlx_quantises(bits: int, size: int, dtype: mx.Dtype) -> None:
    layout = RowLayout([0, 0])
    cache = QuantizedRowCache(layout, bits)
    keys, values = (mx.random.normal((2, 3, 5, size), dtype, key=mx.random.key(i)) for i in (0, 1))
    layout.begin([5, 5], is_packed=False)
    fetched = cache.update_and_fetch(keys, values)
    form = {"group_size": cache.group_size, "bits": bits}
    for array, parts in zip((keys, values), fetched, strict=True):
        for mine, expected in zip(parts, mx.quantize(array, **form), strict=True):
            assert mine.dtype == expected.dtype
            assert bool(mx.array_equal(mine, expected))


@pytest.mark.parametrize(("bits", "share", "error"), [(8, 0.29, 0.05), (4, 0.17, 0.5)])
def test_logits_are_close_and_bytes_few(
    wide_dir: Path, bits: int, share: float, error: float
) -> None:
    tokens = mx.array([prompt(60, 1), prompt(60, 2)])
    exact, coarse = loaded(wide_dir).model, loaded(wide_dir, kv_bits=bits).model
    caches = [BatchCache.new(model, 2) for model in (exact, coarse)]
    expected, got = (
        np.array(cache.run(model, tokens, [60, 60]))
        for cache, model in zip(caches, (exact, coarse), strict=True)
    )
    assert np.abs(got - expected).mean() < error * expected.std()
    assert 0 < caches[1].num_bytes <= share * caches[0].num_bytes
    cost = measure_cost(coarse)
    assert cost is not None and cost.row_bytes(60) * 2 == caches[1].num_bytes


@pytest.mark.parametrize("bits", [4, 8])
def test_text_is_the_same_alone_together_and_warm(wide_dir: Path, bits: int) -> None:
    """Rows of all lengths, free and constrained, with forced tokens, cold and from the cache."""
    regex = Constraint("regex", '\\{"name": "[a-z]{3,9}", "value": [0-9]{1,4}\\}')
    constraints = [None, regex]
    requests = [
        request(prompt(length, length), constraint=constraints[length % 2])
        for length in (3, 40, 41, 120, 301, 302)
    ]
    cold, warm = (start(wide_dir, kv_bits=bits, prefix_cache_bytes=n) for n in (0, 1 << 28))
    try:
        alone = [run(cold, asked)[0] for asked in requests]
        streams = [cold.submit(asked) for asked in requests]
        together = [
            "".join(event.text for event in stream if isinstance(event, Delta))
            for stream in streams
        ]
        first = [run(warm, asked)[0] for asked in requests]
        again = [run(warm, asked) for asked in requests]
    finally:
        cold.shutdown()
        warm.shutdown()
    assert alone == together == first == [text for text, _ in again]
    assert [done.usage.cached_tokens for _, done in again] == [
        len(asked.prompt_token_ids) - 1 for asked in requests
    ]


def test_a_model_whose_heads_are_too_small_is_refused(tiny_model_dir: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"kv_bits=8.*16"):
        start(tiny_model_dir, kv_bits=8)


def test_the_fingerprint_tells_them_apart(wide_dir: Path) -> None:
    prints = {loaded(wide_dir, kv_bits=bits).fingerprint for bits in (None, 4, 8)}
    assert len(prints) == 3


def test_other_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="kv_bits must be one of"):
        EngineConfig(kv_bits=5)
