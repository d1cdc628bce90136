"""LoRA adapters, in the form that mlx-lm trains and saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from litellm_mlx.errors import ModelNotFoundError
from litellm_mlx.models.foreign import as_load_error

_FILES = ("adapter_config.json", "adapters.safetensors")


def apply_adapter(model: Any, path: Path, *, dtype: str) -> None:
    """Put the adapter in directory `path` on `model`, in place.

    Args:
        model: a tree of modules; its arrays stay as they are.
        path: of the adapter.
        dtype: how the model's weights are held. Beside float32 the adapter becomes float32, too.

    Raises:
        ModelNotFoundError: the directory or one of its two files is not there.
        ModelLoadError: the adapter is broken, or was trained on another model.
    """
    missing = [name for name in _FILES if not (path / name).is_file()]
    if missing:
        raise ModelNotFoundError(
            f"no adapter at {path}: {' and '.join(missing)} missing; ?adapter=PATH wants a "
            f"directory that mlx_lm.lora wrote"
        )
    from mlx_lm.utils import load_adapters

    advice = "Name the model that it was trained on, or train it again with mlx_lm.lora"
    with as_load_error(f"the adapter at {path} does not fit this model", advice):
        load_adapters(model, str(path))
    if dtype == "float32":
        import mlx.core as mx

        model.set_dtype(mx.float32)
    model.eval()
