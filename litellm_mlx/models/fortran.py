"""libgfortran for an OpenBLAS on a machine that has none, out of MLX's own wheel.

`cmeel-openblas` asks the system for `libgfortran.so.5`, which slim images lack. MLX's Linux wheel
carries that library, but renamed in the way of wheels, so that the loader does not take it for the
one wanted. A copy in memory that calls itself by the usual name will do.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

NAME = "libgfortran.so.5"


def provide_libgfortran(libraries: list[str]) -> None:
    """Load a `libgfortran.so.5` into this process, where there is one to be had.

    Args:
        libraries: paths of those that MLX's wheel carries.
    """
    with suppress(OSError):
        for path in libraries:
            if Path(path).name.startswith("libquadmath-"):  # the copy won't find it beside itself
                ctypes.CDLL(path)
        for path in libraries:
            if Path(path).name.startswith("libgfortran-"):
                _load_renamed(Path(path))


def _load_renamed(path: Path) -> None:
    """Load a copy of a library whose name for itself, its file's name, is `NAME` instead."""
    own, wanted = path.name.encode(), NAME.encode()
    library = path.read_bytes()
    if library.count(own + b"\0") != 1:
        return
    descriptor = os.memfd_create(NAME)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as copy:
            copy.write(library.replace(own, wanted.ljust(len(own), b"\0")))
        ctypes.CDLL(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)
