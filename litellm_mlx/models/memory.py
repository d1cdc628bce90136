"""Whether a model fits this machine; asked before anything of it is loaded."""

from __future__ import annotations

from litellm_mlx.errors import ModelLoadError
from litellm_mlx.models.hardware import GIB, HardwareProfile

# What must stay free beside the weights: layer caches of a short conversation, activations of a
# prefill step, the interpreter. A guess on the small side, so that only hopeless loads are refused.
MARGIN_BYTES = 256 << 20


def refuse_unless_fits(name: str, weights_bytes: int, hardware: HardwareProfile) -> None:
    """Refuse a model whose weights exceed the memory that is available now.

    Raises:
        ModelLoadError: with the bytes that are needed and those that are there.
    """
    needed = weights_bytes + MARGIN_BYTES
    if needed <= hardware.available_bytes:
        return
    raise ModelLoadError(
        f"{name} needs {needed / GIB:.2f} GiB of memory (its weights and {MARGIN_BYTES >> 20} MiB "
        f"to work in), but {hardware.available_bytes / GIB:.2f} GiB of "
        f"{hardware.memory_bytes / GIB:.2f} GiB are available on {hardware.device_name}; "
        f"choose a smaller or more strongly quantised model, or free memory"
    )
