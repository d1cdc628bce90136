"""Imports `litellm_mlx` whenever a program has imported `litellm`; copied to where Python starts.

Stdlib only, and next to nothing is done at start: a finder waits for that one name. It stays when
it was only asked where `litellm` is, as DSPy asks before it imports it.
"""

import sys
from types import ModuleType
from typing import Any


class _Loader:
    """LiteLLM's own loader, with our import behind it."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: Any) -> Any:
        """As the loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run LiteLLM, then register with it."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        try:
            import litellm_mlx  # noqa: F401  # registers mlx/
        except Exception as error:  # the program may never need it
            print(f"litellm-mlx could not register mlx/: {error!r}", file=sys.stderr)


class _LiteLLMFinder:
    """Wraps the loader of `litellm` and finds nothing else."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The spec that the other finders give."""
        if name != "litellm":
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = None if finder is self or find is None else find(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Loader(spec.loader)
                return spec
        return None


sys.meta_path.insert(0, _LiteLLMFinder())
