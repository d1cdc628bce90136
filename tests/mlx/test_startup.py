"""Programs that never import the package know `mlx/`, where someone has asked for that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

PROGRAMS = {
    "litellm": (
        "import litellm\n"
        "print(litellm.completion({model!r}, [{{'role': 'user', 'content': 'hi'}}], max_tokens=4)"
        ".usage.completion_tokens)"
    ),
    # asks where LiteLLM is long before it imports it
    "dspy": "import dspy\nlm = dspy.LM({model!r}, max_tokens=4)\nlm('hi')\nprint(len(lm.history))",
}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own, which finds the packages of this one."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    (packages / "packages.pth").write_text("\n".join(path for path in sys.path if path) + "\n")
    return folder / "bin" / "python"


def call(*command: str | Path, cache: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "DSPY_CACHEDIR": str(cache)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_enable_and_disable(python: Path, tiny: str, tmp_path: Path) -> None:
    """An answer without an import; afterwards the environment is what it was, byte for byte."""
    (packages,) = python.parents[1].glob("lib/python3*/site-packages")
    before = contents(packages)
    for _ in range(2):  # twice is as once
        call(python, "-m", "litellm_mlx", "enable", cache=tmp_path)
    told = json.loads(call(python, "-m", "litellm_mlx", "status", "--json", cache=tmp_path))
    assert told["enabled"] and {*map(Path, told["files"])} <= {*packages.iterdir()}
    for program in PROGRAMS.values():
        assert int(call(python, "-c", program.format(model=tiny), cache=tmp_path)) > 0
    call(python, "-m", "litellm_mlx", "disable", cache=tmp_path)
    assert contents(packages) == before
    assert call(python, "-m", "litellm_mlx", "status", cache=tmp_path) == "not enabled"
    call(python, "-m", "litellm_mlx", "disable", cache=tmp_path)


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_run(python: Path, tiny: str, tmp_path: Path, program: str) -> None:
    code = program.format(model=tiny)
    command = (python, "-m", "litellm_mlx", "run", "--", python, "-c", code)
    assert int(call(*command, cache=tmp_path)) > 0


def test_run_keeps_the_programs_own_start_and_its_exit_code(python: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('mine')")
    code = "import sys; sys.exit(7)"
    done = subprocess.run(
        [python, "-m", "litellm_mlx", "run", "--", python, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout.splitlines()[-1] == "mine"
