"""Models whose names another package reads: it says where their files are, `loader` does the rest.

Stdlib only, like `names`, which asks here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from litellm_mlx.errors import ModelNotFoundError
from litellm_mlx.registered import Table


@dataclass(frozen=True, slots=True)
class CustomLoader:
    """What takes a name, and where its files are; see `extend.register_loader`."""

    takes: Callable[[str], bool]
    locate: Callable[[str], Path]


loaders: Table[CustomLoader] = Table("model loader")


def custom_loader(name: str) -> CustomLoader | None:
    """The first loader that takes a model's name."""
    return next((loader for _, loader in loaders.items() if loader.takes(name)), None)


def locate(name: str) -> Path:
    """Where the files of a model are that a registered loader takes. May fetch or make them.

    Raises:
        ModelNotFoundError: no loader takes the name.
        Exception: whatever the loader raises.
    """
    loader = custom_loader(name)
    if loader is None:
        raise ModelNotFoundError(f"no registered loader takes the name {name!r}")
    return Path(loader.locate(name)).absolute()
