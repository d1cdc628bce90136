"""What a child process runs: one task, read from standard input, under a limit of memory.

Started as a script by `child`. It must not import `litellm_mlx` itself, which imports LiteLLM and
takes seconds, so it puts an empty package in its place and imports from inside it.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


def _limit_memory(limit_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        limit_bytes = min(limit_bytes, hard)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, hard))
    except (OSError, ValueError):  # macOS knows the limit and may refuse to set it
        return


def _import_from_the_package() -> None:
    package = ModuleType("litellm_mlx")
    package.__path__ = [str(Path(__file__).parents[1])]
    sys.modules["litellm_mlx"] = package


def core_index(payload: tuple[Any, int, list[tuple[bytes, int]]]) -> Any:
    """Build outlines_core's index of a constraint over some tokens."""
    import outlines_core

    from litellm_mlx.grammar.core_compiler import core_regex

    constraint, stop_token_id, tokens = payload
    vocabulary = outlines_core.Vocabulary(stop_token_id, {})
    for token, token_id in tokens:
        vocabulary.insert(token, token_id)
    return outlines_core.Index(core_regex(constraint), vocabulary)


def check(payload: tuple[Any, str, bool, str | None]) -> str | None:
    """Validate a text against a schema of a draft; without a text, only see that it can be done."""
    from litellm_mlx.grammar.check import make_check

    schema, draft, takes_repeats, text = payload
    checker = make_check(schema, draft, takes_repeats=takes_repeats)
    return None if text is None else checker(text)


_TASKS: dict[str, Callable[[Any], Any]] = {"core_index": core_index, "check": check}


def main() -> None:
    """Run the task that is asked for."""
    path, limit_bytes = pickle.load(sys.stdin.buffer)
    sys.path[:] = path
    _import_from_the_package()
    _limit_memory(limit_bytes)
    try:
        task, payload = pickle.load(sys.stdin.buffer)
        answer: tuple[str | None, Any] = (None, _TASKS[task](payload))
    except MemoryError:
        sys.exit(1)
    except Exception as error:  # the parent raises it again; its class may be unknown there
        answer = (str(error), None)
    sys.stdout.buffer.write(pickle.dumps(answer))


if __name__ == "__main__":
    main()
