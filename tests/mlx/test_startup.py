"""Programs that never import the package know `mlx/`, where someone has asked for that."""

from __future__ import annotations

import json
import sys
import venv
from pathlib import Path

import pytest

from tests.programs import output_of

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


def litellm_mlx(python: Path, *arguments: str | Path) -> str:
    return output_of("-m", "litellm_mlx", *arguments, python=python).strip()


IN_TURN = """
import json, sys
from litellm_mlx.cli import main
for arguments in json.loads(sys.argv[1]):
    main(arguments, standalone_mode=False)
"""


def in_turn(python: Path, *commands: list[str]) -> list[str]:
    """The lines that several commands print, one after the other in one process."""
    return output_of("-c", IN_TURN, json.dumps(commands), python=python).splitlines()


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_enable_and_disable(python: Path, tiny: str) -> None:
    """An answer without an import; afterwards the environment is what it was, byte for byte."""
    (packages,) = python.parents[1].glob("lib/python3*/site-packages")
    before = contents(packages)
    # twice is as once
    told = json.loads(in_turn(python, ["enable"], ["enable"], ["status", "--json"])[-1])
    assert told["enabled"] and {*map(Path, told["files"])} <= {*packages.iterdir()}
    for program in PROGRAMS.values():
        assert int(output_of("-c", program.format(model=tiny), python=python)) > 0
    litellm_mlx(python, "disable")
    assert contents(packages) == before
    assert in_turn(python, ["status"], ["disable"])[0] == "not enabled"


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_run(python: Path, tiny: str, program: str) -> None:
    code = program.format(model=tiny)
    assert int(litellm_mlx(python, "run", "--", python, "-c", code)) > 0


def test_run_keeps_the_programs_own_start_and_its_exit_code(python: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('mine')")
    command = ("-m", "litellm_mlx", "run", "--", python, "-c", "import sys; sys.exit(7)")
    shown = output_of(*command, python=python, exit_code=7, environ={"PYTHONPATH": str(tmp_path)})
    assert shown.splitlines()[-1] == "mine"
