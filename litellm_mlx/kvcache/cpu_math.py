"""Exponentials in float32 on an x86 CPU, several times as fast there as MLX's own.

MLX 0.32.4 computes `exp` on x86 one element after another, 12 to 20 ns each: with softmax and SiLU
half the time of a forward pass of SmolLM2 over 500 tokens. As a polynomial, of operations that MLX
does run on vectors, it takes 3 ns (2-core EPYC, 2026-11-21). Used in the engine's own passes only:
who runs the same model beside it gets what mlx-lm has.
"""

from __future__ import annotations

import math
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any

import mlx.core as mx

# Of 2**f for |f| <= 1/2, least maximal relative error: 7.5e-8, about the rounding of float32.
_COEFFICIENTS = (
    1.0000000716536293,
    0.6931469670320116,
    0.24022119727263613,
    0.055507133269799856,
    0.00967554119694082,
    0.001327645470448189,
)
_MAX_EXPONENT = 126.0  # 2**-127 is no normal number
_INTEGERS_FROM = 1.5 * 2.0**23
# Below so many elements MLX's one operation is quicker than the twenty here.
_MIN_ELEMENTS = 8_192


class _Passes(threading.local):
    is_ours = False


_passes = _Passes()


@cache
def is_quicker() -> bool:
    """Whether this module is quicker than MLX here."""
    is_cpu = mx.default_device().type == mx.DeviceType.cpu
    return is_cpu and platform.machine() in ("x86_64", "AMD64")


@contextmanager
def our_pass() -> Iterator[None]:
    """The model's operations that this thread asks for inside are the engine's."""
    _passes.is_ours = True
    try:
        yield
    finally:
        _passes.is_ours = False


def power_of_two(x: mx.array) -> mx.array:
    """2**x for x up to 126, with a relative error below 3e-7; below -126 as there."""
    x = mx.maximum(x, -_MAX_EXPONENT)
    # Added to a float32 this large, x is rounded, and is an integer in its lowest bits.
    shifted = x + _INTEGERS_FROM
    fraction = x - (shifted - _INTEGERS_FROM)
    power = _COEFFICIENTS[-1] * fraction + _COEFFICIENTS[-2]
    for coefficient in _COEFFICIENTS[-3::-1]:
        power = power * fraction + coefficient
    # Times 2**whole: added to the exponent, which float32 keeps from bit 23 on.
    return mx.view(mx.view(power, mx.int32) + (mx.view(shifted, mx.int32) << 23), mx.float32)


def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """silu(gate) * x, of two float32 arrays of one shape."""
    exponent = mx.minimum(gate * (-1 / math.log(2)), _MAX_EXPONENT)
    return gate * x / (1 + power_of_two(exponent))


def quickened(original: Callable[[mx.array, mx.array], mx.array]) -> Callable[..., mx.array]:
    """mlx-lm's `swiglu`, with ours in its place where that is quicker."""

    @wraps(original)
    def chosen(gate: mx.array, x: mx.array) -> Any:
        if _passes.is_ours and gate.size >= _MIN_ELEMENTS and gate.dtype == mx.float32 == x.dtype:
            return swiglu(gate, x)
        return original(gate, x)

    return chosen
