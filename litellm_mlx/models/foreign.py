"""The one place that turns what libraries raise while they read foreign files into our errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from litellm_mlx.errors import LiteLLMMLXError, ModelLoadError


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
        raise ModelLoadError(f"{what}: {type(error).__name__}: {error}. {advice}") from error
