"""What a client of a proxy may name and ask for, whatever the proxy's own configuration lets pass.

A wildcard such as `mlx/*` lets every client choose the model, and a model's name may be a path of
this machine, a repository of the hub or an adapter. So of what comes over a network only this is
served: models that the operator lists by their full names, aliases of our table, and what
`LITELLM_MLX_ALLOWED_MODELS` allows.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litellm_mlx.config import EngineConfig
from litellm_mlx.errors import ForbiddenModelError, UnsupportedParameterError, WorkerError
from litellm_mlx.models.names import aliases

if TYPE_CHECKING:
    from filelock import BaseFileLock

_PROXY_MODULE = "litellm.proxy.proxy_server"

_lock: BaseFileLock | None = None  # held until the process ends
_served: dict[str, Served] = {}


@dataclass(frozen=True, slots=True)
class Served:
    """A model of this machine's disk that LiteLLM and its clients know by other names.

    Attributes:
        name: that clients use.
        model: without the `mlx/` prefix.
    """

    name: str
    model: str


def serve_as(deployment: str, served: Served) -> None:
    """Have calls of `deployment` (without `mlx/`) served by a model that LiteLLM cannot name.

    LiteLLM shows what it calls in headers, events and lists, where no path of this machine belongs.
    """
    _served[deployment] = served


def served(deployment: str) -> Served:
    """What stands behind a name that LiteLLM calls; mostly the name says it."""
    return _served.get(deployment) or Served(deployment, deployment)


def is_from_network(litellm_params: Mapping[str, Any]) -> bool:
    """Whether a call came through LiteLLM's proxy."""
    return litellm_params.get("proxy_server_request") is not None


def has_database() -> bool:
    """Whether this process is a proxy of LiteLLM's with a database behind it."""
    return getattr(sys.modules.get(_PROXY_MODULE), "prisma_client", None) is not None


def own_models() -> None:
    """Let one process of a server with several workers own the models, and refuse in the others.

    Each of them would load the same weights again.

    Raises:
        WorkerError: another worker was first.
    """
    global _lock
    if _lock is not None or not _is_one_of_several():
        return
    import tempfile

    from filelock import FileLock, Timeout

    lock = FileLock(Path(tempfile.gettempdir()) / f"litellm-mlx-server-{os.getppid()}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise WorkerError(
            "another worker of this server owns the models, and this one would load them again; "
            "run one worker (--num_workers 1): it answers any number of requests at once"
        ) from None
    _lock = lock


def _is_one_of_several() -> bool:
    """Whether this process was started by a server to share its work, or might have been."""
    import multiprocessing

    is_spawned = multiprocessing.parent_process() is not None
    return is_spawned or "gunicorn" in os.environ.get("SERVER_SOFTWARE", "")


def check_model(name: str, config: EngineConfig) -> None:
    """Refuse a model that a network client may not name.

    Args:
        name: without the `mlx/` prefix.
        config: `allowed_models` are patterns of further names.

    Raises:
        ForbiddenModelError: it is none of those.
    """
    if name.lower() in aliases() or name in _listed_by_operator():
        return
    if any(fnmatchcase(name, pattern) for pattern in config.allowed_models):
        return
    raise ForbiddenModelError(
        f"model {name!r} is not served here; the operator can list it in the proxy's model_list, "
        "or allow it by LITELLM_MLX_ALLOWED_MODELS"
    )


def check_size(params: Mapping[str, Any], config: EngineConfig) -> None:
    """Refuse what asks for more than the operator allows.

    Args:
        params: of the request, as LiteLLM hands them on.
        config: `client_max_n` and `client_max_tokens`; 0 is no limit.

    Raises:
        UnsupportedParameterError: a value is over its limit.
    """
    limits = {"n": config.client_max_n, "max_tokens": config.client_max_tokens}
    for name, limit in limits.items():
        value = params.get(name)
        if limit and isinstance(value, int) and value > limit:
            raise UnsupportedParameterError(
                f"{name}={value} is over the limit of {limit} that the operator has set"
            )


def client_config(config: EngineConfig) -> EngineConfig:
    """The settings for a client's requests: an answer without `max_tokens` keeps the limit, too."""
    if not config.client_max_tokens:
        return config
    limit = min(config.default_max_tokens, config.client_max_tokens)
    return replace(config, default_max_tokens=limit)


def _listed_by_operator() -> set[str]:
    """The models that the running proxy's configuration names in full."""
    router = getattr(sys.modules.get(_PROXY_MODULE), "llm_router", None)
    listed = router.get_model_list() if router is not None else None
    models = [str(entry["litellm_params"]["model"]) for entry in listed or ()]
    return {model.removeprefix("mlx/") for model in models if "*" not in model}
