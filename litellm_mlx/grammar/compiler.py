"""Compiles a constraint and a vocabulary into an index: the Outlines side of the package.

Owns the choice of backend, its options and what its errors are called here. Keeping indexes is
`index_cache`; what a schema is narrowed to beforehand is `json_schema`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.automaton import compile_registered
from litellm_mlx.grammar.check import Check
from litellm_mlx.grammar.core_compiler import core_index
from litellm_mlx.grammar.guide import CoreGuide, Guide, LimitedGuide, LLGuide
from litellm_mlx.grammar.lark_json import with_narrow_schemas
from litellm_mlx.grammar.matcher import NotCompiledError, grammar_matcher, with_stack_for
from litellm_mlx.grammar.nesting_limit import nesting_limit
from litellm_mlx.grammar.number_limit import number_limit
from litellm_mlx.grammar.text_check import check_of, text_check
from litellm_mlx.grammar.tiers import SchemaPlan, plan_schema
from litellm_mlx.types import Constraint, ConstraintKind, Tier

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from litellm_mlx.grammar.vocabulary import Vocabulary

MAX_REASON = 300  # characters of an engine's message that a caller gets to read


class Index(Protocol):
    """A compiled constraint; immutable, shared by threads and sequences."""

    @property
    def compile_s(self) -> float:
        """Seconds that compiling took."""
        ...

    @property
    def tier(self) -> Tier:
        """Whether the guide enforces the whole constraint, or leaves a part to `check`."""
        ...

    @property
    def check(self) -> Check:
        """What finished texts are held against: the whole constraint, in either tier."""
        ...

    def guide(self) -> Guide:
        """Give a new cursor at the beginning of the text."""
        ...


@dataclass(frozen=True, slots=True)
class LLIndex:
    """Index of the llguidance backend: a matcher that is copied and never advanced."""

    matcher: LLMatcher
    vocabulary: Vocabulary
    kind: ConstraintKind
    compile_s: float
    check: Check = field(repr=False)
    plan: SchemaPlan | None = field(default=None, repr=False)

    @property
    def tier(self) -> Tier:
        """Who enforces the constraint."""
        return "grammar" if self.plan is None else self.plan.tier

    def guide(self) -> Guide:
        """Give a new cursor; about 30 us (2 cores of an AMD EPYC, 2026-11-21)."""
        may_steer = self.kind == "grammar"
        guide = LLGuide(
            self.matcher.deep_copy(),
            self.vocabulary,
            may_steer=may_steer,
            first_mask=None if self.plan is None else self.plan.first_mask,
        )
        return _limited(guide, self.vocabulary, self.kind)


@dataclass(frozen=True, slots=True)
class CoreIndex:
    """Index of the outlines_core backend, which is immutable itself."""

    index: Any
    vocabulary: Vocabulary
    kind: ConstraintKind
    compile_s: float
    check: Check = field(repr=False)

    @property
    def tier(self) -> Tier:
        """Always the grammar: what this backend does not enforce is refused."""
        return "grammar"

    def guide(self) -> Guide:
        """Give a new cursor."""
        guide = CoreGuide(self.index, self.vocabulary)
        return _limited(guide, self.vocabulary, self.kind)


def compile_constraint(constraint: Constraint, vocabulary: Vocabulary) -> Index:
    """Compile a constraint for one vocabulary.

    Any thread may call it; it holds no lock, and llguidance drops the GIL.

    Raises:
        ConstraintError: the backend cannot compile it; the message names the keyword.

    Cost: about 1 ms with llguidance; up to 30 s with outlines_core, in a process of its own.
    """
    if constraint.kind == "structure":
        from litellm_mlx.grammar.structure_compiler import compile_structure

        return compile_structure(constraint, vocabulary)
    if constraint.kind == "json_schema":
        number_limit(vocabulary)  # once per vocabulary, here rather than between two tokens
        nesting_limit(vocabulary)
    compile_by = _BUILT_IN.get(constraint.backend, compile_registered)
    try:
        return compile_by(constraint, vocabulary)
    except NotCompiledError as error:
        raise refused(constraint, error.reason) from error


def _limited(guide: Guide, vocabulary: Vocabulary, kind: str) -> Guide:
    return LimitedGuide(guide, vocabulary) if kind == "json_schema" else guide


def _compile_llguidance(constraint: Constraint, vocabulary: Vocabulary) -> Index:
    start_s = time.monotonic()
    plan: SchemaPlan | None = None
    check: Check
    if constraint.kind == "json_schema":
        plan = plan_schema(constraint.source, vocabulary)
        matcher, check = plan.matcher, plan.check
    else:
        matcher, check = _text_matcher(constraint, vocabulary), text_check(constraint)
    compile_s = time.monotonic() - start_s
    return LLIndex(matcher, vocabulary, constraint.kind, compile_s, check, plan)


def _text_matcher(constraint: Constraint, vocabulary: Vocabulary) -> LLMatcher:
    try:
        grammar = _llguidance_grammar(constraint)
    except ValueError as error:
        raise NotCompiledError(str(error)) from error
    return with_stack_for(constraint.source, lambda: grammar_matcher(grammar, vocabulary)).matcher


def _llguidance_grammar(constraint: Constraint) -> str:
    from llguidance import LLMatcher, grammar_from

    if constraint.kind == "choice":
        # grammar_from("choice") writes surrogate pairs, which the Lark reader does not join.
        choices = (json.dumps(c, ensure_ascii=False) for c in json.loads(constraint.source))
        return LLMatcher.grammar_from_lark("start: " + " | ".join(choices))
    if constraint.kind == "regex":
        return LLMatcher.grammar_from_regex(constraint.source)
    return grammar_from("grammar", with_narrow_schemas(constraint.source))


def _compile_core(constraint: Constraint, vocabulary: Vocabulary) -> Index:
    start_s = time.monotonic()
    check = check_of(constraint, is_vouched_for=True)
    index = core_index(constraint, vocabulary)
    return CoreIndex(index, vocabulary, constraint.kind, time.monotonic() - start_s, check)


# The backends of this package; others are `automaton`'s.
_BUILT_IN: Mapping[str, Callable[[Constraint, Vocabulary], Index]] = {
    "llguidance": _compile_llguidance,
    "outlines_core": _compile_core,
}


def refused(constraint: Constraint, reason: str) -> ConstraintError:
    """Put the engine's reason into the words that a caller gets to read."""
    what = {"json_schema": "JSON schema", "choice": "list of choices"}
    name = what.get(constraint.kind, constraint.kind)
    # Of a regex the engine prints the whole and a caret; its last line says what is wrong.
    if len(reason) > MAX_REASON:
        reason = reason.strip().rsplit("\n", 1)[-1][:MAX_REASON]
    return ConstraintError(
        f"the backend {constraint.backend} cannot enforce this {name}: {reason.strip()}. "
        "Leave out or rewrite what it names"
    )
