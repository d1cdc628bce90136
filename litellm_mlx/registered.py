"""The tables into which other packages register, and the entry points that fill them.

What may be put in is `extend`'s; what is made of it is up to `models.custom`, `grammar.automaton`
and `translate.tool_formats.families`, which own the entries. Stdlib only.
"""

from __future__ import annotations

import logging
import threading
from typing import Generic, TypeVar

from litellm_mlx.types import BUILT_IN_BACKENDS

logger = logging.getLogger("litellm_mlx")

# A package names a function under it, which is called once and registers what the package has.
ENTRY_POINTS = "litellm_mlx.extensions"

T = TypeVar("T")

_lock = threading.Lock()
# Apart, so that a module which registers while it is imported never waits for another import.
_loading = threading.RLock()
_are_loaded = False


class Table(Generic[T]):
    """Entries of one kind by their names, in the order in which they came. Any thread may call."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> None:
        """Take an entry.

        Raises:
            ValueError: the name is taken.
        """
        with _lock:
            if name in self._entries:
                raise ValueError(f"a {self._kind} named {name!r} is registered already")
            self._entries[name] = entry

    def get(self, name: str) -> T | None:
        """The entry of a name."""
        _load_extensions()
        with _lock:
            return self._entries.get(name)

    def items(self) -> list[tuple[str, T]]:
        """Every name with its entry."""
        _load_extensions()
        with _lock:
            return list(self._entries.items())


# Of `automaton.RegisteredBackend`; here because a setting is checked against their names.
backends: Table[object] = Table("constraint backend")


def check_backend(name: str) -> str:
    """Give the name of a backend back.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in BUILT_IN_BACKENDS and backends.get(name) is None:
        known = ", ".join((*BUILT_IN_BACKENDS, *(other for other, _ in backends.items())))
        raise ValueError(f"no constraint backend is named {name!r}; there are {known}")
    return name


def _load_extensions() -> None:
    """Call what installed packages name, once; others wait meanwhile."""
    global _are_loaded
    with _loading:
        if _are_loaded:
            return
        _are_loaded = True  # first, since an extension may look something up itself
        from importlib.metadata import entry_points

        for point in entry_points(group=ENTRY_POINTS):
            try:
                point.load()()
            except Exception:  # another package's fault must not take every model away
                logger.exception("the extension %s (%s) is left out", point.name, point.value)
