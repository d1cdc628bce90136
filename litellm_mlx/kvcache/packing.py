"""Lets mlx-lm's models run the tokens of several rows packed, without padding.

A model that gets tokens as (T, 1) treats each as a sequence of its own, everywhere but in
attention. There each must meet the keys of its row: mlx-lm's models all call one function for
attention, by its name in their module, and that name is wrapped here. Any other cache, and so any
other program's use of these modules, takes the way it always took.
"""

from __future__ import annotations

import sys
from functools import wraps
from typing import Any

import mlx.core as mx

from litellm_mlx.kvcache.cpu_attention import is_for, row_attention
from litellm_mlx.kvcache.cpu_math import is_quicker, quickened
from litellm_mlx.kvcache.layers import BatchCache, are_close
from litellm_mlx.kvcache.row_cache import RowCache, packed_attention

_NAME = "scaled_dot_product_attention"
# Packed and padded logits differ by rounding; where packing does not work they are unrelated.
_MAX_DIFFERENCE = 0.2  # of the standard deviation of the logits
_ROWS = ((3, 5, 7), (11, 13))


def enable_packing(model: Any) -> bool:
    """Make a model take packed passes, and try it out; false where it cannot.

    Costs two short forward passes.
    """
    if not BatchCache.new(model, 1).is_plain:
        return False
    for name in {type(module).__module__ for module in model.modules()}:
        _wrap_attention(sys.modules[name])
        _wrap_activation(sys.modules[name])
    try:
        return _is_equal(model)
    except Exception:  # whatever a model's code does with shapes that it does not expect
        return False


def _wrap_attention(module: Any) -> None:
    from mlx_lm.models import base

    original = base.scaled_dot_product_attention
    if getattr(module, _NAME, None) is not original or module is base:
        return

    @wraps(original)
    def attention(
        queries: Any, keys: Any, values: Any, cache: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        if not isinstance(cache, RowCache) or args:
            return original(queries, keys, values, cache, *args, **kwargs)
        chosen = row_attention if is_for(queries, keys, cache, **kwargs) else original
        if cache.layout.current.needs_unpacking:
            return packed_attention(chosen, queries, keys, values, cache, **kwargs)
        return chosen(queries, keys, values, cache, **kwargs)

    setattr(module, _NAME, attention)


def _wrap_activation(module: Any) -> None:
    from mlx_lm.models import activations

    original = activations.swiglu
    if is_quicker() and getattr(module, "swiglu", None) is original:
        module.swiglu = quickened(original)


def _is_equal(model: Any) -> bool:
    counts = [len(row) for row in _ROWS]
    width = max(counts)
    padded = mx.array([[*row, *[0] * (width - len(row))] for row in _ROWS])
    expected = BatchCache.new(model, len(_ROWS)).run(model, padded, counts)
    packed = mx.array([[token] for row in _ROWS for token in row])
    got = BatchCache.new(model, len(_ROWS)).run(model, packed, counts)[:, 0]
    expected = mx.concatenate([expected[i, :count] for i, count in enumerate(counts)])
    return are_close(got, expected, _MAX_DIFFERENCE)
