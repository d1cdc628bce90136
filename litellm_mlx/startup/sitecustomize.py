"""Python imports this at start: the hook beside it, then the one that it would have imported."""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

import _litellm_mlx_hook  # type: ignore[import-not-found]  # noqa: F401  # copied beside it

_own = Path(__file__).parent
_others = [path for path in sys.path if Path(path) != _own]
_spec = PathFinder.find_spec("sitecustomize", _others)
if _spec is not None and _spec.loader is not None:
    sys.modules["sitecustomize"] = _module = module_from_spec(_spec)
    _spec.loader.exec_module(_module)
