"""Logits of chosen tokens only are the logits that all tokens would have had there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from litellm_mlx.kvcache.layers import BatchCache
from litellm_mlx.kvcache.output_head import OutputHead
from litellm_mlx.kvcache.packing import enable_packing
from tests.tiny_architectures import make_architecture
from tests.tiny_model import make_tiny_model

ROWS = [[5, 6, 7, 8], [9], [10, 11]]


def load(path: Path, **options: Any) -> Any:
    from mlx_lm.utils import load_model

    return load_model(make_tiny_model(path / "model", **options))[0]


def all_logits(model: Any, row: list[int]) -> np.ndarray:
    from mlx_lm.models.cache import make_prompt_cache

    return np.array(model(mx.array([row]), cache=make_prompt_cache(model))[0])


@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
def test_each_row_gets_its_last_tokens_logits(tmp_path: Path, model_type: str) -> None:
    model = load(tmp_path, model_type=model_type)
    head = OutputHead(model)
    assert head.is_selective
    assert enable_packing(model)
    packed = mx.array([[token] for row in ROWS for token in row])
    cache = BatchCache.new(model, len(ROWS))
    got = head.logits(model, cache, packed, [len(row) for row in ROWS], [1] * len(ROWS))
    assert got.shape[0] == len(ROWS)
    for row, logits in zip(ROWS, got, strict=True):
        np.testing.assert_allclose(np.array(logits), all_logits(model, row)[-1], atol=1e-4)
    alone = head.logits(model, BatchCache.new(model, 1), mx.array([ROWS[0]]), [len(ROWS[0])], [1])
    np.testing.assert_allclose(np.array(alone[0]), all_logits(model, ROWS[0])[-1], atol=1e-4)


def test_other_passes_still_give_all_logits(tmp_path: Path) -> None:
    model = load(tmp_path)
    before = all_logits(model, ROWS[0])
    OutputHead(model)
    after = all_logits(model, ROWS[0])
    assert after.shape == before.shape
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_a_model_whose_logits_are_no_function_of_one_hidden_state_gives_all(
    tmp_path: Path,
) -> None:
    model = load(tmp_path)
    kind = type(model)

    def call(self: Any, tokens: Any, cache: Any = None) -> Any:
        logits = kind.__call__(self, tokens, cache=cache)
        return logits + mx.arange(logits.shape[1])[None, :, None]  # depends on the place

    model.__class__ = type("Other", (kind,), {"__call__": call})
    head = OutputHead(model)
    assert not head.is_selective
    got = head.logits(model, BatchCache.new(model, 1), mx.array([ROWS[0]]), [len(ROWS[0])], [1])
    expected = np.array(model(mx.array([ROWS[0]]))[0, -1])
    np.testing.assert_allclose(np.array(got[0]), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["mamba", "gemma3n", "llama4", "jamba"])
def test_the_head_is_found_wherever_a_model_keeps_it(tmp_path: Path, kind: str) -> None:
    from mlx_lm.utils import load_model

    model = load_model(make_architecture(tmp_path / "model", kind))[0]
    head = OutputHead(model)
    assert head.is_selective
    got = head.logits(model, BatchCache.single(model), mx.array([ROWS[0]]), [len(ROWS[0])], [1])
    assert got.shape[0] == 1
    np.testing.assert_allclose(np.array(got[0]), all_logits(model, ROWS[0])[-1], atol=1e-4)
