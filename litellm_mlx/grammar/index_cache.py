"""Compiled indexes, so that equal constraints are compiled once.

Owns who compiles and who waits, and what is forgotten first. Compiling itself is `compiler`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from litellm_mlx.grammar.compiler import Index, compile_constraint
from litellm_mlx.grammar.vocabulary import Vocabulary
from litellm_mlx.types import Constraint

Key = tuple[Constraint, str]

# An index of llguidance 1.9.1 takes 90 to 270 bytes for each byte of a large schema, 30 for enums,
# and some 30 kB for the schemas of 1 kB that most are (resident memory, Linux, 2026-11-21).
BYTES_PER_INDEX = 2**15
BYTES_PER_SOURCE_BYTE = 270


def estimated_bytes(constraint: Constraint) -> int:
    """Memory that the index of a constraint may take; what it takes cannot be asked for."""
    return BYTES_PER_INDEX + BYTES_PER_SOURCE_BYTE * len(constraint.source)


@dataclass(frozen=True, slots=True)
class IndexCacheStats:
    """What the cache has done so far; a hit may have waited for another thread's compile."""

    num_entries: int
    estimated_bytes: int
    hits: int
    misses: int


class IndexCache:
    """Bounded store of indexes, least recently used out first. Any thread may call it."""

    def __init__(
        self,
        max_entries: int = 256,
        *,
        max_bytes: int = 2**29,
        compile_index: Callable[[Constraint, Vocabulary], Index] = compile_constraint,
    ) -> None:
        """Make an empty cache.

        Args:
            max_entries: how many indexes to keep.
            max_bytes: how much memory they may take together, by `estimated_bytes`; the newest is
                kept even where it alone takes more.
            compile_index: for tests.
        """
        if max_entries < 1:
            raise ValueError(f"max_entries must be positive, not {max_entries}")
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._bytes = 0
        self._compile_index = compile_index
        self._entries: OrderedDict[Key, Future[Index]] = OrderedDict()
        self._lock = threading.Lock()
        self._hits = 0
        self._misses = 0

    def get(self, constraint: Constraint, vocabulary: Vocabulary) -> Index:
        """Give the index of a constraint, compiled now if it is not here.

        Blocks while this or another thread compiles the same key; other keys go on.

        Raises:
            ConstraintError: it cannot be compiled; all that waited for it get the same error,
                and the next call tries again.
        """
        key = (constraint, vocabulary.fingerprint)
        with self._lock:
            future = self._entries.get(key)
            if future is not None:
                self._hits += 1
                self._entries.move_to_end(key)
            else:
                self._misses += 1
                mine: Future[Index] = Future()
                self._entries[key] = mine
                self._bytes += estimated_bytes(constraint)
                self._evict()
        if future is not None:
            return future.result()
        return self._compile(key, mine, vocabulary)

    def stats(self) -> IndexCacheStats:
        """Count entries, hits and misses."""
        with self._lock:
            return IndexCacheStats(len(self._entries), self._bytes, self._hits, self._misses)

    def _compile(self, key: Key, future: Future[Index], vocabulary: Vocabulary) -> Index:
        """Compile into `future`; an error wakes the waiters and leaves no entry."""
        try:
            index = self._compile_index(key[0], vocabulary)
        except BaseException as error:
            with self._lock:
                if self._entries.get(key) is future:
                    del self._entries[key]
                    self._bytes -= estimated_bytes(key[0])
            future.set_exception(error)
            raise
        future.set_result(index)
        return index

    def _evict(self) -> None:
        """Drop the oldest entries; one still compiling serves its waiters and is not kept."""
        while len(self._entries) > self._max_entries or (
            self._bytes > self._max_bytes and len(self._entries) > 1
        ):
            (constraint, _), _ = self._entries.popitem(last=False)
            self._bytes -= estimated_bytes(constraint)
