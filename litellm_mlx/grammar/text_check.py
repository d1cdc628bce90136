"""Validates finished texts of every constraint; of those that are no JSON, it owns how.

A choice is looked up. A regex or a grammar is followed once more, byte by byte and from its source:
that finds what a backend, a bitmask or the way from tokens to text did wrong, and not what
llguidance itself takes a regex to mean. JSON is `check`'s, a structure `structure_compiler`'s.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.check import Check
from litellm_mlx.grammar.tiers import whole_check
from litellm_mlx.types import Constraint

if TYPE_CHECKING:
    from litellm_mlx.grammar.compiler import Index

# 0.2 ms for a grammar of nested brackets (2 cores of an AMD EPYC, 2026-11-28).
QUICK_CHARACTERS = 1_000
# A grammar may name tokens of the model, which single bytes have not: `<|call|>`, `<[32]>`.
_NAMES_TOKENS = re.compile(r"<[\[|/\w]")


def check_of(constraint: Constraint, *, is_vouched_for: bool) -> Check:
    """Give the check of any constraint but a structure.

    Args:
        constraint: what the caller wants enforced.
        is_vouched_for: see `check.SchemaCheck`.

    Raises:
        ConstraintError: its texts cannot be checked, and nobody vouches for them.
    """
    if constraint.kind == "json_schema":
        return whole_check(json.loads(constraint.source), is_vouched_for=is_vouched_for)
    check = text_check(constraint)
    if not is_vouched_for and isinstance(check, GrammarCheck):
        check.build()
    return check


def text_check(constraint: Constraint) -> ChoiceCheck | GrammarCheck:
    """Give the check of a choice, a regex or a grammar."""
    return ChoiceCheck(constraint) if constraint.kind == "choice" else GrammarCheck(constraint)


class ChoiceCheck:
    """The check of a list of choices; see `check.Check`."""

    def __init__(self, constraint: Constraint) -> None:
        self._choices = frozenset(json.loads(constraint.source))

    def __call__(self, text: str) -> str | None:
        """Say that a text is none of them, or `None`."""
        return None if text in self._choices else f"{text!r:.80} is none of the choices"

    def prepare(self) -> None:
        """Do nothing."""

    def is_quick(self, text: str) -> bool:
        """Always."""
        return True


class GrammarCheck:
    """The check of a regex or a grammar over single bytes; see `check.Check`.

    A text passes where bytes cannot say it.
    """

    def __init__(self, constraint: Constraint) -> None:
        self._constraint = constraint

    def build(self) -> None:
        """Compile it.

        Raises:
            ConstraintError: llguidance cannot.
        """
        try:
            _ = self._index
        except ConstraintError as error:
            raise ConstraintError(
                f"what the backend {self._constraint.backend} writes cannot be checked: {error}"
            ) from error

    def __call__(self, text: str) -> str | None:
        """Say that a text does not match, or `None`."""
        index = self._index_if_any
        if index is None or index.guide().ends_with(list(text.encode())):
            return None
        return f"{text!r:.80} does not match the {self._constraint.kind}"

    def prepare(self) -> None:
        """Compile it, if that can be done."""
        _ = self._index_if_any

    def is_quick(self, text: str) -> bool:
        """Whether it takes some 0.2 ms at most."""
        return len(text) <= QUICK_CHARACTERS

    @cached_property
    def _index(self) -> Index:
        from litellm_mlx.grammar.compiler import compile_constraint
        from litellm_mlx.grammar.vocabulary import byte_vocabulary

        return compile_constraint(
            replace(self._constraint, backend="llguidance"), byte_vocabulary()
        )

    @cached_property
    def _index_if_any(self) -> Index | None:
        is_grammar = self._constraint.kind == "grammar"
        if is_grammar and _NAMES_TOKENS.search(self._constraint.source):
            return None
        try:
            return self._index
        except ConstraintError:
            return None
