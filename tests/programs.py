"""Runs a Python program as its user would: in a process and a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

TIMEOUT_S = 400


def output_of(
    *arguments: str | Path,
    python: str | Path = sys.executable,
    exit_code: int = 0,
    environ: Mapping[str, str] = {},
) -> str:
    """What `python` with these arguments prints, where it ends as it should.

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
    for trouble in ("Traceback", "Exception ignored"):
        assert trouble not in done.stderr, done.stderr
    return done.stdout
