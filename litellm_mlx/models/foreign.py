"""The one place that turns what libraries raise while they read foreign files into our errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from litellm_mlx.errors import LiteLLMMLXError, ModelLoadError

# By what MLX says, where the files are not at fault.
_ADVICE = {
    "only supports float32": (
        "MLX runs mixtures of experts on the CPU in float32 only: leave LITELLM_MLX_EXPAND_WEIGHTS "
        "on, and choose a model that fits into this memory in float32"
    ),
    "No Metal back-end": "mlx-lm runs this kind of model on Apple's GPU only",
}


@contextmanager
def as_load_error(what: str, advice: str) -> Iterator[None]:
    """Raise a ModelLoadError "`what`: the cause. `advice`" for any foreign error in the block."""
    try:
        yield
    except LiteLLMMLXError:
        raise
    # mlx, mlx-lm, transformers, tokenizers (bare Exception) and httpx share no base class, and
    # none of them says which errors a broken file gives. A model's module may even end the process
    # (mlx-lm's OLMo does where hf_olmo is missing), which in a thread ends nothing but the thread.
    except (Exception, SystemExit) as error:
        cause = f"{type(error).__name__}: {error}".rstrip(". ")
        advice = next((help_ for said, help_ in _ADVICE.items() if said in str(error)), advice)
        raise ModelLoadError(f"{what}: {cause}. {advice}") from error
