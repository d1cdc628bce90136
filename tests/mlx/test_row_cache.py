"""Rows of their own length in one batch give the logits that each gives alone in mlx-lm."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from litellm_mlx.kvcache.layers import BatchCache
from litellm_mlx.kvcache.packing import enable_packing
from tests.tiny_model import ROTATING, make_tiny_model


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path) -> Any:
    from mlx_lm.utils import load_model

    return load_model(tiny_model_dir)[0]


def alone(model: Any, tokens: list[int]) -> np.ndarray:
    """mlx-lm's own way: all tokens at once, logits of each."""
    from mlx_lm.models.cache import make_prompt_cache

    return np.array(model(mx.array([tokens]), cache=make_prompt_cache(model))[0])


def padded(rows: list[list[int]]) -> mx.array:
    width = max(map(len, rows))
    return mx.array([[*row, *[0] * (width - len(row))] for row in rows])


def packed(rows: list[list[int]]) -> mx.array:
    return mx.array([[token] for row in rows for token in row])


def last_logits(logits: mx.array, rows: list[list[int]], *, is_packed: bool) -> list[np.ndarray]:
    if not is_packed:
        return [np.array(logits[i, len(row) - 1]) for i, row in enumerate(rows)]
    ends = np.cumsum([len(row) for row in rows]) - 1
    return [np.array(logits[int(end), 0]) for end in ends]


def random_rows(rng: random.Random, lengths: list[int]) -> list[list[int]]:
    return [[rng.randrange(3, 300) for _ in range(length)] for length in lengths]


@pytest.mark.parametrize("is_packed", [False, True])
def test_rows_of_any_length_grow_by_any_number_of_tokens(model: Any, is_packed: bool) -> None:
    assert enable_packing(model)
    rng = random.Random(int(is_packed))
    rows = random_rows(rng, [1, 7, 260, 30])
    cache = BatchCache.new(model, len(rows))
    cache.run(model, padded(rows), [len(row) for row in rows])
    for _ in range(6):
        new = random_rows(rng, [rng.randrange(1, 6) for _ in rows])
        rows = [[*row, *more] for row, more in zip(rows, new, strict=True)]
        tokens = packed(new) if is_packed else padded(new)
        logits = cache.run(model, tokens, [len(more) for more in new])
        for row, got in zip(rows, last_logits(logits, new, is_packed=is_packed), strict=True):
            np.testing.assert_allclose(got, alone(model, row)[-1], atol=2e-4)
    assert cache.lengths == [len(row) for row in rows]


def test_rows_come_and_go(model: Any) -> None:
    rng = random.Random(2)
    rows = random_rows(rng, [5, 300, 12])
    cache = BatchCache.new(model, 3)
    cache.run(model, padded(rows), [len(row) for row in rows])
    cache.keep([2, 1, 1])  # one goes, one is doubled
    rows = [rows[2], rows[1], rows[1]]
    more = random_rows(rng, [40, 3])
    other = BatchCache.new(model, 2)
    other.run(model, padded(more), [len(row) for row in more])
    copied = other.copy_of([1])
    cache.extend(other)
    cache.extend(BatchCache.new(model, 1))  # a row without tokens
    cache.extend(copied)
    rows += [*more, [], more[1]]
    new = random_rows(rng, [1] * len(rows))
    logits = cache.run(model, padded(new), [1] * len(rows))
    for i, (row, token) in enumerate(zip(rows, new, strict=True)):
        np.testing.assert_allclose(
            np.array(logits[i, 0]), alone(model, [*row, *token])[-1], atol=2e-4
        )


def test_a_model_with_another_kind_of_cache_is_not_packed(tmp_path: Path) -> None:
    from mlx_lm.utils import load_model

    path = make_tiny_model(tmp_path / "gemma", **ROTATING)
    rotating = load_model(path)[0]
    assert not BatchCache.new(rotating, 1).is_plain
    assert not enable_packing(rotating)


def test_a_model_whose_attention_is_its_own_is_not_packed(model: Any) -> None:
    from mlx_lm.models import base, llama

    wrapped = llama.scaled_dot_product_attention
    try:  # a module that calls its own function: packing would mix the rows up

        def own(queries: Any, keys: Any, values: Any, cache: Any, scale: float, mask: Any) -> Any:
            return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale)

        llama.scaled_dot_product_attention = own
        assert not enable_packing(model)
    finally:
        llama.scaled_dot_product_attention = wrapped
    assert llama.scaled_dot_product_attention is not base.scaled_dot_product_attention
    assert enable_packing(model)
