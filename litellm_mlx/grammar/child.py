"""Runs work that cannot be interrupted in a process of its own, under limits of time and memory.

For native code that holds the interpreter or grows without bound: building an outlines_core index,
and validating against a schema that is hostile or merely huge. Python's own multiprocessing is not
used, because it runs the caller's main module again. What the process does is `child_main`.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

Task = Literal["core_index", "check"]

_MAIN = Path(__file__).with_name("child_main.py")


class ChildError(Exception):
    """The process was stopped at a limit, or failed; the message says at which."""


def run_in_child(task: Task, payload: object, *, limit_s: float, limit_bytes: int) -> Any:
    """Run one of `child_main`'s tasks and give its result.

    The calling thread waits; others run on. Starting the process takes about 40 ms.

    Args:
        task: which.
        payload: its argument; like the result, it is pickled.
        limit_s: wall-clock time, after which the process is killed.
        limit_bytes: address space; macOS does not hold processes to it.

    Raises:
        ValueError: the task raised it.
        ChildError: a limit was met.
    """
    # Neither site packages nor the environment: `sys.path` is handed over as it is here.
    command = [sys.executable, "-P", "-S", "-E", str(_MAIN)]
    request = pickle.dumps((sys.path, limit_bytes)) + pickle.dumps((task, payload))
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            answer, _ = process.communicate(request, timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise ChildError(f"it took longer than {limit_s:g} s") from None
        finally:
            process.kill()
    if process.returncode != 0 or not answer:
        raise ChildError(f"it needed more than {limit_bytes / 2**30:g} GiB of memory")
    error, result = pickle.loads(answer)
    if error is not None:
        raise ValueError(error)
    return result
