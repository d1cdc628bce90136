"""What is freed goes back to the system once an engine has nothing to do."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from litellm_mlx.engine import thread
from litellm_mlx.engine.heap import _malloc_trim, give_back_free_memory
from tests.tiny_engine import collect, request, start

HOLE_BYTES = 64 << 20
PIECE_BYTES = 64 << 10  # glibc maps larger ones one by one, and gives those back itself


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_holes_in_the_heap_are_given_back() -> None:
    if sys.platform != "linux":
        assert _malloc_trim() is None
        give_back_free_memory()
        return
    pieces = [np.ones(PIECE_BYTES, np.uint8) for _ in range(HOLE_BYTES // PIECE_BYTES)]
    last = np.ones(PIECE_BYTES, np.uint8)  # above the hole, so that the heap cannot just shrink
    pieces.clear()
    before = resident_bytes()
    give_back_free_memory()
    assert before - resident_bytes() > HOLE_BYTES // 2
    assert last.sum() == PIECE_BYTES


def test_an_engine_tidies_up_once_each_time_it_falls_idle(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    monkeypatch.setattr(thread, "_TIDY_AFTER_S", 0.05)
    monkeypatch.setattr(
        thread, "give_back_free_memory", lambda: threads.append(threading.current_thread().name)
    )
    engine = start(tiny_model_dir)
    for number in (1, 2, 3):
        if number > 1:  # the first time, it has only loaded the model
            collect(engine.submit(request(number, None, max_tokens=4)))
        end_s = time.monotonic() + 20
        while len(threads) < number and time.monotonic() < end_s:
            time.sleep(0.01)
        time.sleep(0.2)  # as long as several idle times
        assert threads == ["litellm-mlx tiny"] * number
    engine.shutdown()
