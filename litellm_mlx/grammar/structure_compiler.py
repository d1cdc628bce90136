"""Compiles a structure and a vocabulary into an index: all its parts become one grammar.

The values are `structure`, the grammar's text is `structure_lark`, the way back from a finished
text to its JSON is `structure_match`; what becomes of each schema is `tiers`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.check import Check
from litellm_mlx.grammar.guide import Guide, LLGuide
from litellm_mlx.grammar.json_schema import Schema
from litellm_mlx.grammar.matcher import (
    JSON_OPTIONS,
    NotCompiledError,
    grammar_matcher,
    with_stack_for,
)
from litellm_mlx.grammar.nesting_limit import nesting_limit
from litellm_mlx.grammar.number_limit import number_limit
from litellm_mlx.grammar.structure import JsonPart, OneOf, Part, Repeat, Seq, structure_of
from litellm_mlx.grammar.structure_guide import StructureGuide, json_begins
from litellm_mlx.grammar.structure_lark import structure_grammar
from litellm_mlx.grammar.structure_match import can_be_read
from litellm_mlx.grammar.tiers import plan_schema
from litellm_mlx.grammar.vocabulary import marker_token_ids
from litellm_mlx.types import Constraint, ConstraintKind, Tier

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from litellm_mlx.grammar.guide import Bitmask
    from litellm_mlx.grammar.vocabulary import Vocabulary

_PLACE = re.compile(r"^at \d+\(\d+\): ")
_MAX_REASON = 300  # characters of an engine's message that a caller gets to read
CUT_SHORT = "the text ends before the form that was asked for is complete"


@dataclass(frozen=True, slots=True)
class StructureCheck:
    """The check of a structure's JSON; see `check.Check`.

    Attributes:
        root: the structure.
        checks: of its JSON parts, by their sources.
    """

    root: Part
    checks: Mapping[str, Check]

    def __call__(self, text: str) -> str | None:
        """Say what is wrong with the JSON in a finished text, or `None`."""
        problem: str | None = None

        def is_valid(source: str, json_text: str) -> bool:
            nonlocal problem
            found = self.checks[source](json_text)
            problem = problem if found is None else found
            return found is None

        return None if can_be_read(self.root, text, is_valid) else problem or CUT_SHORT

    def prepare(self) -> None:
        """Build the checks of all parts."""
        for check in self.checks.values():
            check.prepare()

    def is_quick(self, text: str) -> bool:
        """Whether it would be for each part alone."""
        return all(check.is_quick(text) for check in self.checks.values())


@dataclass(frozen=True, slots=True)
class StructureIndex:
    """Index of a structure: a matcher that is copied and never advanced.

    Attributes:
        tier: whether the grammar holds every JSON part, or leaves something to the check.
        begins: see `structure_guide.json_begins`.
        never: bitmask of the markup tokens that the structure does not name; `None` for none.
    """

    matcher: LLMatcher
    vocabulary: Vocabulary
    tier: Tier
    check: Check
    begins: tuple[bytes, ...]
    never: Bitmask | None
    compile_s: float
    kind: ConstraintKind = "structure"

    def guide(self) -> Guide:
        """Give a new cursor."""
        guide = LLGuide(self.matcher.deep_copy(), self.vocabulary, may_steer=True)
        return StructureGuide(guide, self.vocabulary, self.begins, self.never)


def compile_structure(constraint: Constraint, vocabulary: Vocabulary) -> StructureIndex:
    """Compile a structure for one vocabulary.

    Raises:
        ConstraintError: a part of it cannot be enforced.
    """
    start = time.monotonic()
    number_limit(vocabulary)  # once per vocabulary, here rather than between two tokens
    nesting_limit(vocabulary)
    root = structure_of(constraint)
    try:
        sources = dict.fromkeys(_sources(root))
        plans = {source: plan_schema(source, vocabulary) for source in sources}
        schemas = {source: _with_options(plan.engine_schema) for source, plan in plans.items()}
        grammar = structure_grammar(root, marker_token_ids(vocabulary), schemas)
        matcher = _matcher(grammar.lark, vocabulary)
    except NotCompiledError as error:
        raise _refused(error.reason) from error
    never = set(vocabulary.steering_token_ids) - grammar.marker_token_ids
    return StructureIndex(
        matcher=matcher,
        vocabulary=vocabulary,
        tier="grammar+check" if any(plan.loosened for plan in plans.values()) else "grammar",
        check=StructureCheck(root, {source: plan.check for source, plan in plans.items()}),
        begins=tuple(begin.encode() for begin in sorted(json_begins(root))),
        never=vocabulary.bitmask(never) if never else None,
        compile_s=time.monotonic() - start,
    )


def _sources(part: Part) -> Iterator[str]:
    """The schemas of all JSON parts, as their texts."""
    match part:
        case JsonPart(source):
            yield source
        case Seq(inner) | OneOf(inner):
            for item in inner:
                yield from _sources(item)
        case Repeat(item):
            yield from _sources(item)


def _with_options(schema: Schema) -> dict[str, Any]:
    return {**({} if isinstance(schema, bool) else schema), "x-guidance": JSON_OPTIONS}


def _matcher(lark: str, vocabulary: Vocabulary) -> LLMatcher:
    from llguidance import LLMatcher

    grammar = LLMatcher.grammar_from_lark(lark)
    return with_stack_for(lark, lambda: grammar_matcher(grammar, vocabulary)).matcher


def _refused(reason: str) -> ConstraintError:
    """Our error of the engine's: without the place in a grammar that the caller has not written."""
    said = _PLACE.sub("", reason.split("\n   1 | ", 1)[0])
    if len(said) > _MAX_REASON:  # of a regex it prints the whole; its last line says what is wrong
        said = said.strip().rsplit("\n", 1)[-1][:_MAX_REASON]
    return ConstraintError(
        f"the backend llguidance cannot enforce this structure: {said.strip()}. "
        "Leave out or rewrite what it names"
    )
