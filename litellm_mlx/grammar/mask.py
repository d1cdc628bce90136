"""The token bitmask on logits, in portable MLX operations that every device has.

Owns one function. Filling the bitmask is `guide`; there is no Metal kernel here, because one
mask is under 1% of a decode step and a kernel would leave Linux untested.
"""

from __future__ import annotations

import mlx.core as mx

from litellm_mlx.errors import EngineError

# Each token's bit in its word; bit 31 is the int32 sign.
_BITS = mx.array([1 << bit for bit in range(31)] + [-(1 << 31)], dtype=mx.int32)


def apply_token_bitmask(logits: mx.array, bitmask: mx.array) -> mx.array:
    """Give every forbidden token a logit of -inf.

    Args:
        logits: (B, V), any float dtype; V is the padded width the model returns.
        bitmask: (B, ceil(V / 32)), int32; bit t % 32 of word t // 32 is token t, 1 = allowed.

    Returns:
        (B, V), dtype of `logits`; a new array, both inputs unchanged, not evaluated yet.

    Raises:
        EngineError: the bitmask covers fewer than V tokens, B differs, or it is not int32.

    Cost: one pass over B * V. Source: bit order of outlines-core 0.2 and llguidance 1.9.
    """
    if logits.ndim != 2 or bitmask.ndim != 2 or bitmask.dtype != mx.int32:
        raise EngineError(
            f"logits must be (B, V) and the bitmask (B, words) int32, not {logits.shape} and "
            f"{bitmask.shape} {bitmask.dtype}"
        )
    num_rows, vocab_size = logits.shape
    if bitmask.shape[0] != num_rows or bitmask.shape[1] * 32 < vocab_size:
        raise EngineError(
            f"a bitmask of shape {bitmask.shape} cannot cover logits of shape {logits.shape}"
        )
    return _apply(logits, bitmask)


# Median ms on 2 cores of an AMD EPYC, MLX 0.32.4 on the CPU, float32, 2026-11-21, by (B, V):
#                     (1, 49152)  (16, 49152)  (1, 151936)  (16, 151936)
#   bit test, compiled     0.04        0.57         0.16         1.78
#   shift, compiled        0.05        0.62         0.18         1.85
#   byte look-up           0.18        4.01         0.83        12.31   (compiling does not help)
#   bit test, plain        0.10        3.42         0.73        10.59   (no C++ compiler there)
@mx.compile
def _apply(logits: mx.array, bitmask: mx.array) -> mx.array:
    num_rows, vocab_size = logits.shape
    bits = mx.bitwise_and(bitmask[:, :, None], _BITS).reshape(num_rows, -1)  # (B, words * 32)
    forbidden = mx.array(-mx.inf, dtype=logits.dtype)
    return mx.where(bits[:, :vocab_size] != 0, logits, forbidden)
