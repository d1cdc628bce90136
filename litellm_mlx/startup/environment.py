"""Puts the hook into the environment of this interpreter, and takes it out again.

Two files in its site-packages, which Python reads at every start: a line that imports the hook,
and the hook. Nothing else is touched.
"""

from __future__ import annotations

import os
import sysconfig
from dataclasses import dataclass
from importlib import resources
from importlib.util import cache_from_source
from pathlib import Path

HOOK_NAME = "_litellm_mlx_hook"
_LINE = f"import {HOOK_NAME}\n"


@dataclass(frozen=True, slots=True)
class HookFiles:
    """Where the hook of an environment lies.

    Attributes:
        folder: its site-packages.
    """

    folder: Path

    @classmethod
    def here(cls) -> HookFiles:
        """Those of this interpreter's environment."""
        return cls(Path(sysconfig.get_path("purelib")))

    @property
    def line(self) -> Path:
        """What Python reads at start."""
        return self.folder / "litellm_mlx_startup.pth"

    @property
    def hook(self) -> Path:
        """What that imports."""
        return self.folder / f"{HOOK_NAME}.py"

    @property
    def is_enabled(self) -> bool:
        """Both are there, as this version of the package writes them."""
        return _has(self.line, _LINE) and _has(self.hook, _hook_text())

    def enable(self) -> None:
        """Write both; the hook first, so that no interpreter starts without it."""
        self.hook.write_text(_hook_text(), encoding="utf-8")
        self.line.write_text(_LINE, encoding="utf-8")

    def disable(self) -> None:
        """Remove both and what Python compiled of them; nothing happens where they are not."""
        self.line.unlink(missing_ok=True)
        compiled = Path(cache_from_source(str(self.hook)))
        for path in compiled.parent.glob(f"{HOOK_NAME}.*.pyc"):
            path.unlink()
        self.hook.unlink(missing_ok=True)
        if compiled.parent.is_dir() and not any(compiled.parent.iterdir()):
            compiled.parent.rmdir()


def environment_with_hook(environ: dict[str, str], folder: Path) -> dict[str, str]:
    """The environment variables of a program that is to know `mlx/`, and its children.

    Args:
        environ: those it would have.
        folder: an empty one that outlives the program.
    """
    (folder / f"{HOOK_NAME}.py").write_text(_hook_text(), encoding="utf-8")
    (folder / "sitecustomize.py").write_text(_text("sitecustomize.py"), encoding="utf-8")
    before = environ.get("PYTHONPATH")
    paths = [str(folder), before] if before else [str(folder)]
    return {**environ, "PYTHONPATH": os.pathsep.join(paths)}


def _hook_text() -> str:
    return _text("hook.py")


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _has(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text
