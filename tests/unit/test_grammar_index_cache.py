"""The index cache: one compile per key, bounded, and errors are not kept."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, cast

import pytest

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.compiler import Index
from litellm_mlx.grammar.constraint import regex_constraint
from litellm_mlx.grammar.index_cache import IndexCache, estimated_bytes
from litellm_mlx.grammar.vocabulary import Vocabulary


@dataclass
class FakeVocabulary:
    fingerprint: str = "one"


def _vocabulary(fingerprint: str = "one") -> Vocabulary:
    return cast(Vocabulary, FakeVocabulary(fingerprint))


class Compiler:
    """Counts compiles and gives a new object each time; waits where told to."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.may_end = threading.Event()
        self.may_end.set()
        self.error: Exception | None = None

    def __call__(self, constraint: Any, vocabulary: Any) -> Index:
        self.started.append(constraint.source)
        assert self.may_end.wait(10)
        if self.error is not None:
            raise self.error
        return cast(Index, object())


def _join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_equal_keys_share_an_index_and_others_do_not() -> None:
    compiler = Compiler()
    cache = IndexCache(compile_index=compiler)
    first = cache.get(regex_constraint("a"), _vocabulary())
    assert cache.get(regex_constraint("a"), _vocabulary()) is first
    assert cache.get(regex_constraint("a"), _vocabulary("two")) is not first
    assert cache.get(regex_constraint("a", "outlines_core"), _vocabulary()) is not first
    stats = cache.stats()
    assert (stats.num_entries, stats.hits, stats.misses) == (3, 1, 3)


def test_threads_that_want_one_key_compile_it_once_and_hold_up_no_other() -> None:
    compiler = Compiler()
    compiler.may_end.clear()
    cache, found = IndexCache(compile_index=compiler), []
    threads = [
        threading.Thread(
            target=lambda: found.append(cache.get(regex_constraint("a"), _vocabulary()))
        )
        for _ in range(8)
    ]
    other = threading.Thread(target=lambda: cache.get(regex_constraint("b"), _vocabulary()))
    for thread in [*threads, other]:
        thread.start()
    while len(compiler.started) < 2:
        pass
    compiler.may_end.set()
    _join([*threads, other])
    assert sorted(compiler.started) == ["a", "b"]
    assert len(found) == 8 and len({id(index) for index in found}) == 1


def test_an_error_reaches_all_that_wait_and_the_next_call_tries_again() -> None:
    compiler = Compiler()
    compiler.error = ConstraintError("no")
    cache = IndexCache(compile_index=compiler)
    for _ in range(2):
        with pytest.raises(ConstraintError, match="no"):
            cache.get(regex_constraint("a"), _vocabulary())
    compiler.error = None
    cache.get(regex_constraint("a"), _vocabulary())
    assert len(compiler.started) == 3


def test_the_least_recently_used_goes_first() -> None:
    compiler = Compiler()
    cache = IndexCache(2, compile_index=compiler)
    for pattern in ("a", "b", "a", "c", "a", "b"):
        cache.get(regex_constraint(pattern), _vocabulary())
    assert compiler.started == ["a", "b", "c", "b"]
    assert cache.stats().num_entries == 2


def test_memory_is_bounded_by_what_the_sources_let_expect() -> None:
    compiler = Compiler()
    large = [regex_constraint(letter * 100_000) for letter in "abc"]
    cache = IndexCache(max_bytes=2 * estimated_bytes(large[0]), compile_index=compiler)
    for constraint in (*large, large[1], large[0]):
        cache.get(constraint, _vocabulary())
    assert [source[0] for source in compiler.started] == ["a", "b", "c", "a"]
    assert cache.stats().estimated_bytes == 2 * estimated_bytes(large[0])
    cache.get(regex_constraint("d" * 900_000), _vocabulary())
    assert cache.stats().num_entries == 1


def test_a_failed_compile_leaves_no_bytes_behind() -> None:
    compiler = Compiler()
    compiler.error = ConstraintError("no")
    cache = IndexCache(compile_index=compiler)
    with pytest.raises(ConstraintError):
        cache.get(regex_constraint("a"), _vocabulary())
    assert cache.stats().estimated_bytes == 0


def test_a_cache_needs_room() -> None:
    with pytest.raises(ValueError, match="positive"):
        IndexCache(0)
