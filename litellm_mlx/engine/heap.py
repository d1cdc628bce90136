"""Gives back to the system what was freed: glibc keeps it, and passes leave large holes behind.

After 200 requests to SmolLM2 a process held 1,320 MiB, of which 280 were such holes
(`benchmarks/memory.py`); how many there are is chance, and looks like growth.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache


def give_back_free_memory() -> None:
    """Takes tens of milliseconds, so that it is for idle times. Does nothing without glibc."""
    if (trim := _malloc_trim()) is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
