"""Start LiteLLM's proxy in this process, which owns the models."""

from __future__ import annotations

import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from litellm_mlx.config import ENV_PREFIX
from litellm_mlx.network import serve_as
from litellm_mlx.register import handler
from litellm_mlx.serving.config import (
    KEY_VARIABLE,
    deployments,
    ensure_key,
    named,
    proxy_config,
    write_config,
)

logger = logging.getLogger("litellm_mlx")

_CONFIG_VARIABLE = "CONFIG_FILE_PATH"
_LAST_ANSWERS_S = 10  # for those that are being written when the server is told to end


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How to serve.

    Attributes:
        models: see `proxy_config`; none where `config` is given.
        config: an operator's own configuration of the proxy, used as it is.
        host: address to listen on.
        port: likewise.
        max_body_mb: size of a request, which is refused with a 413 beyond it.
        is_preloading: the first model is loaded at once and not at its first request.
        is_strict: hints are refused that cannot change what an answer must be.
    """

    models: tuple[str, ...]
    config: Path | None
    host: str
    port: int
    max_body_mb: float
    is_preloading: bool
    is_strict: bool = False


def serve(options: ServeOptions) -> None:
    """Serve until the process is told to end. Prints a key where one had to be made up.

    One process, whatever LiteLLM's settings say: each would load the models again.

    Raises:
        ModelNotFoundError, UnsupportedParameterError: see `proxy_config`.
    """
    import uvicorn

    with tempfile.TemporaryDirectory(prefix="litellm-mlx-") as folder:
        path = options.config or _written(options, Path(folder))
        key = ensure_key(os.environ)
        os.environ[_CONFIG_VARIABLE] = str(path)
        if options.is_strict:
            os.environ[f"{ENV_PREFIX}CLIENT_HINTS"] = "0"
        _announce(options, key)
        if options.is_preloading and options.models:
            handler.registry.preload(named(options.models[0])[1])
        from litellm_mlx.serving.app import make_app  # takes seconds, in which the model loads

        app = make_app(max_body_mb=options.max_body_mb)
        uvicorn.run(
            app,
            host=options.host,
            port=options.port,
            workers=1,
            server_header=False,
            timeout_graceful_shutdown=_LAST_ANSWERS_S,
        )


def _written(options: ServeOptions, folder: Path) -> Path:
    for deployment, served in deployments(options.models).items():
        serve_as(deployment, served)
    path = folder / "config.yaml"
    write_config(proxy_config(options.models, is_strict=options.is_strict), path)
    return path


def _announce(options: ServeOptions, key: str | None) -> None:
    print(f"litellm-mlx: serving http://{options.host}:{options.port}/v1", flush=True)
    if key is not None:
        print(f"litellm-mlx: no {KEY_VARIABLE} was set; for this run it is {key}", flush=True)
