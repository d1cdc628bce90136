"""Our exponentials give what MLX's give, in softmax, in SiLU and in a whole model."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from litellm_mlx.kvcache import cpu_attention, cpu_math
from litellm_mlx.kvcache.layers import BatchCache
from litellm_mlx.kvcache.packing import enable_packing
from litellm_mlx.kvcache.row_cache import RowCache, RowLayout

HEADS, KEY_HEADS, DIM = 6, 2, 16


def test_powers_of_two_are_exact_to_the_rounding_of_float32() -> None:
    exponents = np.concatenate([np.linspace(-126, 126, 200_001), np.linspace(-1, 1, 100_001)])
    got = np.array(cpu_math.power_of_two(mx.array(exponents.astype(np.float32))))
    expected = np.exp2(exponents.astype(np.float32).astype(np.float64))
    assert np.max(np.abs(got / expected - 1)) < 3e-7


def test_what_is_masked_weighs_nothing() -> None:
    far = cpu_math.power_of_two(mx.array([-1e30, -1000.0, -126.0]))
    assert np.array(far).tolist() == pytest.approx([2.0**-126] * 3, rel=3e-7)


def test_swiglu_is_that_of_mlx_lm() -> None:
    from mlx_lm.models.activations import swiglu

    gate = mx.concatenate([mx.linspace(-30, 30, 5_000), mx.array([-1e4, 1e4, 0.0])])
    up = mx.random.normal(gate.shape, key=mx.random.key(0))
    np.testing.assert_allclose(cpu_math.swiglu(gate, up), swiglu(gate, up), rtol=1e-5, atol=1e-9)


def test_only_the_engines_passes_are_quickened() -> None:
    size = cpu_math._MIN_ELEMENTS

    def mlx_lm(gate: mx.array, x: mx.array) -> str:
        return "mlx-lm"

    chosen = cpu_math.quickened(mlx_lm)  # type: ignore[arg-type]
    large, small = mx.zeros((size,)), mx.zeros((size - 1,))
    assert chosen(large, large) == "mlx-lm"
    with cpu_math.our_pass():
        assert chosen(small, small) == "mlx-lm"
        assert chosen(large.astype(mx.float16), large) == "mlx-lm"
        assert isinstance(chosen(large, large), mx.array)
    assert chosen(large, large) == "mlx-lm"


@pytest.mark.parametrize("block_scores", [700, 10**9])
@pytest.mark.parametrize(
    ("starts", "width"), [([0], 40), ([50], 30), ([5, 90], 12), ([7, 80, 0], 1), ([33, 33], 9)]
)
def test_attention_is_that_of_mlx(
    monkeypatch: pytest.MonkeyPatch, starts: list[int], width: int, block_scores: int
) -> None:
    monkeypatch.setattr(cpu_attention, "_BLOCK_SCORES", block_scores)
    layout = RowLayout(starts)
    layout.begin([width] * len(starts), is_packed=False)
    cache = RowCache(layout)
    num_columns = layout.current.num_columns
    keys = iter(mx.random.split(mx.random.key(1), 3))
    queries = mx.random.normal((len(starts), HEADS, width, DIM), key=next(keys))
    held, values = (
        mx.random.normal((len(starts), KEY_HEADS, num_columns, DIM), key=next(keys))
        for _ in range(2)
    )
    for window in (None, 6):
        mask = cache.make_mask(width, window_size=window)
        got = cpu_attention.row_attention(queries, held, values, cache, scale=0.3, mask=mask)
        expected = mx.fast.scaled_dot_product_attention(queries, held, values, scale=0.3, mask=mask)
        np.testing.assert_allclose(got, expected, atol=2e-6)


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_model_gives_the_logits_that_it_gives_without(
    monkeypatch: pytest.MonkeyPatch, tiny_model_dir: Path, is_packed: bool
) -> None:
    from mlx_lm.utils import load_model

    model: Any = load_model(tiny_model_dir)[0]
    monkeypatch.setattr(cpu_attention, "is_quicker", lambda: True)
    assert enable_packing(model)
    rng = random.Random(0)
    counts = [3, 70, 41]
    rows = [[rng.randrange(3, 300) for _ in range(count)] for count in counts]
    if is_packed:
        tokens = mx.array([[token] for row in rows for token in row])
    else:
        tokens = mx.array([row + [0] * (max(counts) - len(row)) for row in rows])

    def logits() -> np.ndarray:
        return np.array(BatchCache.new(model, len(rows)).run(model, tokens, counts))

    calls = []
    ours = cpu_attention.attend
    monkeypatch.setattr(
        cpu_attention, "attend", lambda *args, **named: calls.append(0) or ours(*args, **named)
    )
    monkeypatch.setattr(cpu_attention, "_MIN_SCORES", 10**9)
    expected = logits()
    assert not calls
    monkeypatch.setattr(cpu_attention, "_MIN_SCORES", 0)
    got = logits()
    assert calls
    if not is_packed:  # what stands in the padding is anything
        ends = [(i, slice(count)) for i, count in enumerate(counts)]
        got, expected = (np.concatenate([array[end] for end in ends]) for array in (got, expected))
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())
