"""Load models ahead of the first call, and let go of them."""

from __future__ import annotations

from litellm_mlx.register import handler


def load(name: str, *, timeout_s: float | None = None) -> None:
    """Load a model and wait until it is ready; at once when it is loaded already.

    Args:
        name: with or without the `mlx/` prefix: an alias, `org/repo`, `org/repo@revision`, a
            directory or a `.gguf` file.
        timeout_s: stop waiting after this long; loading goes on in the background.

    Raises:
        ModelNotFoundError: no such model, or its files cannot be fetched.
        ModelLoadError: it cannot be served on this machine.
        RequestTimeoutError: `timeout_s` passed.
    """
    handler.registry.engine(name.removeprefix("mlx/")).model(timeout_s)


def unload_all() -> None:
    """Stop every engine and free its memory; requests that still run end with an error."""
    registry = handler.registry_if_used
    if registry is not None:
        registry.unload_all()
