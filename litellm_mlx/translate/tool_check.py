"""Validates the calls in a finished text, each against the schema that its caller sent.

Owns what is checked and how long validators of tools are kept. What the validator is says
`grammar.check`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.check import Check
from litellm_mlx.grammar.escaped_lark import text_check
from litellm_mlx.grammar.text_check import QUICK_CHARACTERS
from litellm_mlx.grammar.tiers import whole_check
from litellm_mlx.translate.custom_tools import CONTENT
from litellm_mlx.translate.tool_formats.form import Tool
from litellm_mlx.translate.tool_reader import ToolReader, read_calls

# An agent sends the same tools with every request. A validator takes some 20 bytes for each byte
# of its schema, so that these are 100 MB at the very most.
MAX_KEPT = 256
MAX_KEPT_SOURCE = 20_000


def arguments_check(tool: Tool, *, is_vouched_for: bool) -> Check:
    """Give the check of a tool's arguments.

    Args:
        tool: whose own schema they must satisfy.
        is_vouched_for: see `grammar.check.SchemaCheck`.

    Raises:
        ConstraintError: the schema cannot be judged, and no grammar vouches for it.
    """
    source = json.dumps(tool.own_schema, ensure_ascii=False)
    make = _kept_check if len(source) <= MAX_KEPT_SOURCE else _check
    try:
        check = make(source, is_vouched_for)
        return (
            check if tool.lark is None else BothChecks(check, ContentCheck(text_check(tool.lark)))
        )
    except ConstraintError as error:
        raise ConstraintError(f"tool {tool.name!r}: {error}") from error


def _check(source: str, is_vouched_for: bool) -> Check:
    return whole_check(json.loads(source), is_vouched_for=is_vouched_for)


_kept_check = lru_cache(MAX_KEPT)(_check)


@dataclass(frozen=True, slots=True)
class ContentCheck:
    """The check of a custom tool's only argument, a text with a grammar; see `grammar.check.Check`.

    Attributes:
        of_text: says what is wrong with the text.
    """

    of_text: Callable[[str], str | None]

    def __call__(self, text: str) -> str | None:
        """Say what is wrong with the text in the arguments, or `None`."""
        return self.of_text(json.loads(text)[CONTENT])

    def prepare(self) -> None:
        """Do nothing: the grammar was read when the tool was."""

    def is_quick(self, text: str) -> bool:
        """Whether it takes some 0.2 ms at most."""
        return len(text) <= QUICK_CHARACTERS


@dataclass(frozen=True, slots=True)
class CallsCheck:
    """The check of the calls in a text; see `grammar.check.Check`.

    Attributes:
        make_reader: gives a new reader of one completion.
        checks: of arguments, by the tool's name.
    """

    make_reader: Callable[[], ToolReader]
    checks: Mapping[str, Check]

    def __call__(self, text: str) -> str | None:
        """Say what is wrong with the arguments of the calls in a text, or `None`."""
        for call in read_calls(self.make_reader(), text)[1]:
            if reason := self.checks[call.name](call.arguments):
                return f"arguments of {call.name}: {reason}"
        return None

    def prepare(self) -> None:
        """Build the validators of all tools."""
        for check in self.checks.values():
            check.prepare()

    def is_quick(self, text: str) -> bool:
        """Whether it would be for each tool that the text names."""
        return all(check.is_quick(text) for name, check in self.checks.items() if name in text)


@dataclass(frozen=True, slots=True)
class BothChecks:
    """Two checks of one text; see `grammar.check.Check`."""

    first: Check
    second: Check

    def __call__(self, text: str) -> str | None:
        """Say what either finds, or `None`."""
        return self.first(text) or self.second(text)

    def prepare(self) -> None:
        """Build both."""
        self.first.prepare()
        self.second.prepare()

    def is_quick(self, text: str) -> bool:
        """Whether both are."""
        return self.first.is_quick(text) and self.second.is_quick(text)
