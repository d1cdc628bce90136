"""Runs a Python program as its user would: in a process and a folder of its own."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path

TIMEOUT_S = 400
# What every program of ours imports, at three seconds of processor time. DSPy is not among it: it
# reads where its cache lies when it is imported. MLX is not either: its threads survive no fork.
PRELOADED = ["litellm", "transformers", "numpy"]


def output_of(
    *arguments: str | Path,
    python: str | Path = sys.executable,
    exit_code: int = 0,
    environ: Mapping[str, str] = {},
) -> str:
    """What `python` with these arguments prints, where it ends as it should; see `outputs_of`."""
    shown, told = outputs_of(*arguments, python=python, exit_code=exit_code, environ=environ)
    assert_no_trouble(told)
    return shown


def outputs_of(
    *arguments: str | Path,
    python: str | Path = sys.executable,
    exit_code: int = 0,
    environ: Mapping[str, str] = {},
) -> tuple[str, str]:
    """What `python` with these arguments writes to stdout and stderr, as it ends with `exit_code`.

    Its working directory, which is DSPy's cache too, is new and goes with it, so that no program
    finds what another has left. `environ` comes on top of this process's environment.
    """
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [python, *arguments],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            cwd=folder,
            env={**os.environ, "DSPY_CACHEDIR": folder, **environ},
        )
    assert done.returncode == exit_code, done.stderr
    return done.stdout, done.stderr


def output_of_script(script: Path, *arguments: str | Path, environ: Mapping[str, str] = {}) -> str:
    """What a script prints, as `output_of`, in a process that starts with LiteLLM imported.

    The process is forked from one that has done nothing but import `PRELOADED`; everything that
    the script itself imports, loads and starts is its own.
    """
    with tempfile.TemporaryDirectory() as folder:
        shown, told = Path(folder, "stdout"), Path(folder, "stderr")
        (inside := Path(folder, "cwd")).mkdir()
        process = _fork_server().Process(
            target=_run_script,
            args=(
                [str(script), *map(str, arguments)],
                {**os.environ, "DSPY_CACHEDIR": str(inside), **environ},
                inside,
                (shown, told),
            ),
        )
        process.start()
        process.join(TIMEOUT_S)
        if process.exitcode is None:
            process.kill()
        assert process.exitcode == 0, told.read_text()
        assert_no_trouble(told.read_text())
        return shown.read_text()


def assert_no_trouble(told: str) -> None:
    """Fail where a process told of an error on its stderr, whatever its exit code."""
    for trouble in ("Traceback", "Exception ignored"):
        assert trouble not in told, told


@cache
def _fork_server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _run_script(
    argv: Sequence[str], environ: Mapping[str, str], folder: Path, output: tuple[Path, Path]
) -> None:
    """Become `python SCRIPT ARGUMENTS`, from its arguments to what it does at its exit."""
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    for path, stream in zip(output, (sys.stdout, sys.stderr), strict=True):
        stream.flush()
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream.fileno())
    sys.argv[:] = argv
    sys.path[0] = str(Path(argv[0]).parent)
    runpy.run_path(argv[0], run_name="__main__")
    # multiprocessing leaves by os._exit, which skips what an interpreter does at its end.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
