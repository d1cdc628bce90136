"""The bitmask on logits, against a plain NumPy reading of the bits."""

from __future__ import annotations

import threading

import mlx.core as mx
import numpy as np
import pytest

from litellm_mlx.errors import EngineError
from litellm_mlx.grammar.mask import apply_token_bitmask

SIZES = [(1, 1), (1, 31), (2, 32), (3, 33), (1, 315), (16, 1000), (2, 49152)]


def _oracle(logits: np.ndarray, bitmask: np.ndarray) -> np.ndarray:
    expected = np.full_like(logits, -np.inf)
    for row, words in enumerate(bitmask):
        for token in range(logits.shape[1]):
            if int(words[token // 32]) >> (token % 32) & 1:
                expected[row, token] = logits[row, token]
    return expected


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize(("num_rows", "vocab_size"), SIZES)
def test_mask_keeps_allowed_logits_and_forbids_the_rest(
    num_rows: int, vocab_size: int, dtype: mx.Dtype
) -> None:
    seed = num_rows * 100_003 + vocab_size
    print("seed", seed)
    rng = np.random.default_rng(seed)
    logits = mx.array(rng.normal(size=(num_rows, vocab_size)).astype(np.float32)).astype(dtype)
    # One word more than needed: a bitmask may be wider than the logits.
    words = rng.integers(-(2**31), 2**31, (num_rows, (vocab_size + 31) // 32 + 1)).astype(np.int32)
    masked = apply_token_bitmask(logits, mx.array(words))
    assert masked.dtype == dtype
    expected = _oracle(np.array(logits.astype(mx.float32)), words)
    assert np.array_equal(np.array(masked.astype(mx.float32)), expected)


def test_all_and_nothing() -> None:
    logits = mx.zeros((1, 70))
    words = mx.full((1, 3), -1, dtype=mx.int32)
    assert mx.array_equal(apply_token_bitmask(logits, words), logits)
    assert mx.all(apply_token_bitmask(logits, mx.zeros_like(words)) == -mx.inf)


def test_mask_works_on_any_thread() -> None:
    found: list[bool] = []

    def run() -> None:
        with mx.stream(mx.new_stream(mx.default_device())):
            masked = apply_token_bitmask(mx.zeros((1, 40)), mx.zeros((1, 2), dtype=mx.int32))
            found.append(bool(mx.all(masked == -mx.inf)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert found == [True]


@pytest.mark.parametrize(
    ("logits", "bitmask"),
    [
        (mx.zeros((1, 33)), mx.zeros((1, 1), dtype=mx.int32)),
        (mx.zeros((2, 32)), mx.zeros((1, 1), dtype=mx.int32)),
        (mx.zeros((32,)), mx.zeros((1, 1), dtype=mx.int32)),
        (mx.zeros((1, 32)), mx.zeros((1,), dtype=mx.int32)),
        (mx.zeros((1, 32)), mx.zeros((1, 1), dtype=mx.uint8)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(logits: mx.array, bitmask: mx.array) -> None:
    with pytest.raises(EngineError):
        apply_token_bitmask(logits, bitmask)
