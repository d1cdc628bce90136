"""How weights are held: quantised as published, or expanded to float32 on the CPU.

MLX's quantised and half-precision products on the CPU don't use the BLAS. Expanding buys speed
for memory: SmolLM2-135M with MKL on 2 AMD EPYC cores (mlx 0.32.4, 2026-11-21, 512 prompt tokens)
went from 11 to 242 tokens/s in prefill and from 7 to 21 in decode. Without a tuned BLAS it gains
next to nothing: 11 and 8 to 10.
"""

from __future__ import annotations

import logging
from typing import Any

from litellm_mlx.models.hardware import GIB, HardwareProfile
from litellm_mlx.models.memory import MARGIN_BYTES

logger = logging.getLogger("litellm_mlx")

_FLOAT32_BYTES = 4


def num_parameters(model: Any) -> int:
    """Parameters of the model, each packed weight counted as what it stands for."""
    from mlx_lm.utils import get_total_parameters

    return int(get_total_parameters(model))


def expand_on_cpu(model: Any, hardware: HardwareProfile, *, wanted: bool) -> str:
    """Expand `model` to float32 in place where that pays and fits; says how weights are held.

    Returns:
        For people and for the fingerprint, as "float32", "bfloat16" or "4-bit quantised".
    """
    held = describe(model)
    if hardware.device != "cpu" or held == "float32":
        return held
    if not wanted:
        logger.info("weights stay %s, as expand_weights=False asks; the CPU is slow on them", held)
        return held
    needed = num_parameters(model) * _FLOAT32_BYTES + MARGIN_BYTES
    if needed > hardware.available_bytes - num_bytes(model):
        logger.warning(
            "weights stay %s and generation is slow: float32 would take %.2f GiB of %.2f GiB",
            held,
            needed / GIB,
            hardware.available_bytes / GIB,
        )
        return held
    _expand(model)
    return describe(model)


def describe(model: Any) -> str:
    """How most of the weights are held."""
    import mlx.core as mx

    widths = sorted({module.bits for _, module in model.named_modules() if hasattr(module, "bits")})
    if widths:
        return f"{'/'.join(map(str, widths))}-bit quantised"
    sizes: dict[str, int] = {}
    for array in _arrays(model):
        if mx.issubdtype(array.dtype, mx.floating):
            name = str(array.dtype).rpartition(".")[2]
            sizes[name] = sizes.get(name, 0) + array.size
    return max(sizes, key=lambda name: sizes[name])


def num_bytes(model: Any) -> int:
    """Bytes of all weights."""
    return sum(array.nbytes for array in _arrays(model))


def _arrays(model: Any) -> list[Any]:
    from mlx.utils import tree_flatten

    leaves: Any = tree_flatten(model.parameters())
    return [array for _, array in leaves]


def _expand(model: Any) -> None:
    """Float32 everywhere: scales first, since they decide the dtype of a dequantised weight."""
    import mlx.core as mx
    from mlx_lm.utils import dequantize_model

    model.set_dtype(mx.float32)
    dequantize_model(model)
    model.set_dtype(mx.float32)  # mxfp4 and its kin have integer scales and dequantise to bfloat16
    mx.eval(model.parameters())
    mx.clear_cache()
