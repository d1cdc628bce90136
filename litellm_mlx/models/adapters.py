"""LoRA adapters, in the form that mlx-lm trains and saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from litellm_mlx.errors import ModelLoadError, ModelNotFoundError
from litellm_mlx.models.foreign import as_load_error

_FILES = ("adapter_config.json", "adapters.safetensors")


def adapter_stamp(path: Path) -> tuple[tuple[int, int, int], ...] | None:
    """Changes whenever an adapter's files are replaced; `None` where one of them is not there."""
    try:
        found = [(path / name).stat() for name in _FILES]
    except OSError:
        return None
    return tuple((status.st_ino, status.st_size, status.st_mtime_ns) for status in found)


def apply_adapter(model: Any, path: Path, *, dtype: str) -> None:
    """Put the adapter in directory `path` on `model`, in place.

    Args:
        model: a tree of modules; its arrays stay as they are.
        path: of the adapter.
        dtype: how the model's weights are held. Beside float32 the adapter becomes float32, too.

    Raises:
        ModelNotFoundError: the directory or one of its two files is not there.
        ModelLoadError: the adapter is broken, was trained on another model, or holds weights that
            are not finite.
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
        _refuse_unless_finite(path)
        load_adapters(model, str(path))
    if dtype == "float32":
        import mlx.core as mx

        model.set_dtype(mx.float32)
    model.eval()


def _refuse_unless_finite(path: Path) -> None:
    """Refuse what a training that diverged has saved: every answer would be noise."""
    import mlx.core as mx

    weights: Any = mx.load(str(path / _FILES[1]))
    floats = {name: a for name, a in weights.items() if mx.issubdtype(a.dtype, mx.floating)}
    broken = [name for name, array in floats.items() if not mx.all(mx.isfinite(array))]
    if broken:
        raise ModelLoadError(
            f"the adapter at {path} holds weights that are not finite ({broken[0]} and "
            f"{len(broken) - 1} more of {len(weights)}): its training diverged; train it again "
            "with a lower learning rate"
        )
