"""Load models ahead of the first call, let go of them, and keep a session's cache on disk."""

from __future__ import annotations

from pathlib import Path

from litellm_mlx.register import handler


def load(
    name: str, *, timeout_s: float | None = None, pin: bool = False, embeds: bool | None = None
) -> None:
    """Load a model and wait until it is ready; at once when it is loaded already.

    Args:
        name: with or without the `mlx/` prefix: an alias, `org/repo`, `org/repo@revision`, a
            directory or a `.gguf` file.
        timeout_s: stop waiting after this long; loading goes on in the background.
        pin: keep it in memory whatever other models need, until `unload`.
        embeds: it is to make vectors, for `litellm.embedding`; of an alias this is known.

    Raises:
        ModelNotFoundError: no such model, or its files cannot be fetched.
        ModelLoadError: it cannot be served on this machine.
        RequestTimeoutError: `timeout_s` passed.
    """
    bare = name.removeprefix("mlx/")
    if pin:
        handler.registry.pin(bare, embeds=embeds)
    with handler.registry.lease_any(bare, embeds=embeds) as lease:
        lease.engine.model(timeout_s)


def unload(name: str) -> None:
    """Stop a model's engine and free its memory; nothing happens where it is not loaded.

    Args:
        name: as in `load`.

    Raises:
        ModelBusyError: requests run on it.
        ModelNotFoundError: the name is none.
    """
    registry = handler.registry_if_used
    if registry is not None:
        registry.unload(name.removeprefix("mlx/"))


def unload_all() -> None:
    """Stop every engine and free its memory; requests that still run end with an error."""
    registry = handler.registry_if_used
    if registry is not None:
        registry.unload_all()


def save_cache(model: str, key: str, path: str | Path) -> None:
    """Write what is cached of a session to a file, so that another process can go on with it.

    Args:
        model: as in `load`.
        key: the `prompt_cache_key` of the session's requests.
        path: a file in mlx-lm's own format; ends in `.safetensors`.

    Raises:
        PromptCacheError: nothing is held of the session, or the file cannot be written.
        ModelNotFoundError, ModelLoadError: see `load`.
    """
    with handler.registry.lease(model.removeprefix("mlx/")) as lease:
        lease.engine.call(lambda worker: worker.save_session(key, Path(path)))


def load_cache(model: str, path: str | Path) -> str:
    """Take up a session that `save_cache` wrote; its prompts need no prefill up to there.

    Args:
        model: as in `load`; the very model that the session was saved with.
        path: of the file.

    Returns:
        The session's `prompt_cache_key`.

    Raises:
        PromptCacheError: the file is missing, incomplete, or of another model, or does not fit.
        ModelNotFoundError, ModelLoadError: see `load`.
    """
    with handler.registry.lease(model.removeprefix("mlx/")) as lease:
        return lease.engine.call(lambda worker: worker.load_session(Path(path)))
