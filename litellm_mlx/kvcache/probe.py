"""Finds out how rows of a model may run together, by trying.

Whether a model's code heeds padding, or rows of different length, is written nowhere: some
recurrent layers take padding into their state, some models count positions as if all rows had one
length. What each row gives alone in mlx-lm's own caches is the measure.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx

from litellm_mlx.errors import ModelLoadError
from litellm_mlx.kvcache.layers import BatchCache, Batching
from litellm_mlx.kvcache.row_state import empty_rows

logger = logging.getLogger("litellm_mlx")

# New tokens of three rows: the first two begin together, the third joins them; pass by pass then.
_PADDED = (((2, 10), (1,)), ((1, 1, 1), (4, 2, 3)))
_UNPADDED = (((1, 1), (10,)), ((1, 1, 1), (3, 3, 3)))
_NUM_ROWS = 3
# Of a token's logits, root mean square by their standard deviation. Tiny models of 15 kinds are off
# by 2e-6 at most in float32, and by 0.004 to 1.4 where padding, or another row's length, is taken
# for their own (2-core EPYC, 2026-11-28).
_ROUNDING = 2e-3
# In half precision a GPU's kernels for one row and for several differ by so much. Not granted to
# padding in layers that may take it into their state: without it they are right, hardly slower.
_ROUNDING_HALF = 0.05
# Two ways of mlx-lm's own may differ by more, by bfloat16 inside, by experts that change at a tie:
# so many times of that is rounding, too.
_NOISE_FACTOR = 3.0

Passes = tuple[tuple[tuple[int, ...], tuple[int, ...]], tuple[tuple[int, ...], ...]]


def find_batching(model: Any) -> Batching:
    """How rows of `model` may run together.

    Costs seven short passes, 50 tokens in all: three rows together, and each alone. Up to 25 more
    where rows may not be filled up.

    Raises:
        ModelLoadError: the model fails in its first pass, or differs from mlx-lm in any way to run.
    """
    with _unquantised(model):
        if not _counts_blocks(model):
            if _is_right(model, "padded", _PADDED):
                return "padded"
            if _is_right(model, "unpadded", _UNPADDED):
                return "unpadded"
        if _is_right(model, "alone", _PADDED):
            return "alone"
    raise ModelLoadError(
        "this model gives other logits with the engine's caches than with mlx-lm's own: it cannot "
        "be served; please report its kind"
    )


@contextmanager
def _unquantised(model: Any) -> Iterator[None]:
    """Let a model's caches be exact: quantised ones differ from mlx-lm's by more than rounding."""
    bits = getattr(model, "kv_bits", None)
    if bits is None:
        yield
        return
    model.kv_bits = None
    try:
        yield
    finally:
        model.kv_bits = bits


def _counts_blocks(model: Any) -> bool:
    """Whether attention chooses among blocks of keys, counted from the batch's first column.

    Padding on the left, which mlx-lm gives to shorter rows, moves the blocks (MiniMax M3). It shows
    only in rows of more blocks than are chosen, thousands of tokens: too dear to be tried.
    """
    return any(getattr(module, "index_block_size", None) for module in model.modules())


def _is_right(model: Any, batching: Batching, passes: Passes) -> bool:
    """Whether rows that run together in this way give the logits that each gives alone."""
    whole = _alone(model, [(sum(counts),) for counts in _by_row(passes)])
    try:
        got = _together(model, batching, passes)
    except Exception as error:  # whatever a model's code does with rows that it does not expect
        logger.debug("rows cannot run %s: %s: %s", batching, type(error).__name__, error)
        return False
    rounding = _rounding(model, batching, whole)
    if _difference(got, whole) <= rounding:
        return True
    divided = _alone(model, _by_row(passes))
    noise, difference = _difference(divided, whole), _difference(got, divided)
    logger.debug("rows %s: off by %.4f, mlx-lm by %.4f itself", batching, difference, noise)
    return difference <= max(rounding, _NOISE_FACTOR * noise)


def _rounding(model: Any, batching: Batching, logits: Sequence[mx.array]) -> float:
    """By how much logits may be off."""
    is_exact = all(row.dtype == mx.float32 for row in logits)
    if batching == "alone":  # which nothing of another row can reach
        return _ROUNDING_HALF
    is_suspect = batching == "padded" and not BatchCache.single(model).is_plain
    return _ROUNDING if is_exact or is_suspect else _ROUNDING_HALF


def _by_row(passes: Passes) -> list[tuple[int, ...]]:
    """How many new tokens each row has in each of its passes."""
    (first, second), later = passes
    begun = (*first, *second)
    return [(begun[row], *(counts[row] for counts in later)) for row in range(_NUM_ROWS)]


def _tokens(row: int, start: int, count: int) -> list[int]:
    """Tokens of a row, of those that every vocabulary has."""
    return [5 + (17 * i * i + 29 * row) % 83 for i in range(start, start + count)]


def _alone(model: Any, counts: Sequence[tuple[int, ...]]) -> list[mx.array]:
    """The logits (T, V) of each row in mlx-lm's own caches.

    Raises:
        ModelLoadError: the model fails, or its logits are no numbers.
    """
    from mlx_lm.models.cache import make_prompt_cache

    logits = []
    try:
        for row, own in enumerate(counts):
            cache, done, parts = make_prompt_cache(model), 0, []
            for count in own:
                parts.append(model(mx.array([_tokens(row, done, count)]), cache=cache)[0])
                done += count
            logits.append(mx.concatenate(parts))
        is_broken = bool(mx.any(mx.concatenate([mx.isnan(row).flatten() for row in logits])))
    except Exception as error:
        raise ModelLoadError(
            f"this model fails in its first forward pass, in mlx-lm's own caches as well "
            f"({type(error).__name__}: {error})"
        ) from error
    if is_broken:
        raise ModelLoadError("this model's logits are not numbers: its weights are broken")
    return logits


def _together(model: Any, batching: Batching, passes: Passes) -> list[mx.array]:
    """The logits (T, V) of each row in a batch."""
    (first, second), later = passes
    parts: list[list[mx.array]] = [[] for _ in range(_NUM_ROWS)]
    done = [0] * _NUM_ROWS

    def run(cache: Any, counts: tuple[int, ...], first_row: int) -> None:
        width = max(counts)
        rows = range(first_row, first_row + len(counts))
        tokens = [
            [*_tokens(row, done[row], count), *[0] * (width - count)]
            for row, count in zip(rows, counts, strict=True)
        ]
        logits = cache.run(model, mx.array(tokens), counts)
        for place, (row, count) in enumerate(zip(rows, counts, strict=True)):
            parts[row].append(logits[place, :count])
            done[row] += count

    cache = empty_rows(model, len(first), batching)
    run(cache, first, 0)
    joining = empty_rows(model, len(second), batching)
    run(joining, second, len(first))
    cache.extend(joining)
    for counts in later:
        run(cache, counts, 0)
    logits = [mx.concatenate(own) for own in parts]
    mx.eval(logits)
    return logits


def _difference(got: Sequence[mx.array], expected: Sequence[mx.array]) -> float:
    """The largest difference of one token's logits, see `_ROUNDING`."""
    worst = 0.0
    for own, other in zip(got, expected, strict=True):
        own, other = own.astype(mx.float32), other.astype(mx.float32)
        off = mx.where(own == other, 0.0, own - other)  # both may be -inf
        spread = mx.std(mx.where(mx.isfinite(other), other, 0.0), axis=-1)
        worst = max(worst, float(mx.max(mx.sqrt(mx.mean(off * off, axis=-1)) / (spread + 1e-9))))
    return worst
