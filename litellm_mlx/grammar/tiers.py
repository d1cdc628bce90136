"""Decides how a JSON schema is enforced: by the grammar alone, or by a looser one and a check.

Owns the order in which looser grammars are tried, and the plan that comes of it. What is loosened
is `relax`, the validator is `check`, and the engine is `matcher`. The choice depends on the schema
alone, so that equal schemas are always served alike.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.check import SchemaCheck
from litellm_mlx.grammar.drafts import settle, subschemas
from litellm_mlx.grammar.json_schema import Schema, is_narrow, narrow_schema
from litellm_mlx.grammar.matcher import NotCompiledError, check_schema, schema_matcher
from litellm_mlx.grammar.metaschema import check_is_json_schema
from litellm_mlx.grammar.orders import with_second_order
from litellm_mlx.grammar.plain import (
    PATTERN_KEYWORDS,
    REFERENCE_KEYWORDS,
    has_odd_references,
    with_plain_patterns,
    with_plain_references,
)
from litellm_mlx.grammar.relax import (
    COARSE_STEPS,
    FINE_STEPS,
    ONE_OF_STEP,
    STEPS,
    Loosened,
    has_only_enforced,
    loosen,
)
from litellm_mlx.grammar.schema_budget import MIN_COSTLY_SOURCE, check_budget
from litellm_mlx.grammar.used_names import with_used_names
from litellm_mlx.types import Tier

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from litellm_mlx.grammar.vocabulary import Vocabulary


NAMES = re.compile(r'"([^"\\]+)":')  # keywords have no escapes
# Of the engine, for which the second order cannot be to blame: without it they come again.
_REASONS_WITHOUT_ORDER = ("regex parse", "lookaround", "look-around", "circular references")


@dataclass(frozen=True, slots=True)
class SchemaPlan:
    """How one schema is enforced with one vocabulary.

    `engine_schema` is what the grammar engine is given, with `matcher.JSON_OPTIONS`; `matcher` is
    what it made of it, to be copied and never advanced, and `first_mask` its bitmask at the
    beginning. `loosened` names each keyword that only the check enforces; it is empty where the
    grammar enforces all. `check` holds finished texts against the whole schema either way.
    """

    engine_schema: Schema
    matcher: LLMatcher = field(repr=False)
    first_mask: bytes = field(repr=False)
    loosened: tuple[Loosened, ...]
    check: SchemaCheck = field(repr=False)

    @property
    def tier(self) -> Tier:
        """Who enforces the schema."""
        return "grammar+check" if self.loosened else "grammar"


def plan_schema(source: str, vocabulary: Vocabulary) -> SchemaPlan:
    """Find the tightest grammar for a schema, and what its texts are checked by.

    Args:
        source: the schema as JSON text, as `Constraint.source` of kind json_schema has it.
        vocabulary: whose tokens the grammar is for.

    Raises:
        ConstraintError: not a JSON schema, a reference to another document, or over the budget
            of the check.
        NotCompiledError: it accepts nothing, or is over the engine's budget.

    Cost: 1 ms at the median, 15 ms where several grammars are tried.
    """
    schema = json.loads(source)
    if len(source) > MIN_COSTLY_SOURCE:
        check_budget(schema)
    names = frozenset(NAMES.findall(source))
    if not names.isdisjoint(PATTERN_KEYWORDS):
        schema = with_plain_patterns(schema)
    draft = check_is_json_schema(schema)
    if not names.isdisjoint(REFERENCE_KEYWORDS) and has_odd_references(source):
        schema = with_plain_references(schema, source)
    settled = settle(schema)
    engine_schema = with_used_names(settled) if "patternProperties" in names else settled
    found = _tightest(engine_schema, names, vocabulary)
    is_held = isinstance(found, _Grammar) and not found.loosened
    check = SchemaCheck(schema, draft, settled, is_vouched_for=is_held)
    if not is_held:
        check.build()
    if isinstance(found, NotCompiledError):
        raise found
    return SchemaPlan(*found, check)


def whole_check(schema: Schema, *, is_vouched_for: bool = False) -> SchemaCheck:
    """Give the check of a whole schema, for values that no grammar of ours wrote as one text.

    Args:
        schema: as the caller wrote it.
        is_vouched_for: see `SchemaCheck`.

    Raises:
        ConstraintError: see `plan_schema`.
    """
    if not is_vouched_for:
        check_budget(schema)
    schema = with_plain_patterns(schema)
    draft = check_is_json_schema(schema)
    source = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    if has_odd_references(source):
        schema = with_plain_references(schema, source)
    check = SchemaCheck(schema, draft, settle(schema), is_vouched_for=is_vouched_for)
    if not is_vouched_for:
        check.build()
    return check


class _Grammar(NamedTuple):
    """What one step gives: the first fields of a `SchemaPlan`."""

    engine_schema: Schema
    matcher: LLMatcher
    first_mask: bytes
    loosened: tuple[Loosened, ...]


def contradicts_itself(schema: Schema) -> bool:
    """Whether no value can satisfy a schema, as far as the engine sees; see `why_unusable`."""
    error = _error_of(schema)
    return isinstance(error, NotCompiledError) and error.is_unsatisfiable


def why_unusable(schema: Schema) -> str | None:
    """Say why no tier can hold a text to a schema; `None` where one can, as far as is seen here.

    Cost: a tenth of a millisecond; no vocabulary is needed.
    """
    error = _error_of(schema)
    if isinstance(error, NotCompiledError):
        return error.reason if error.is_unsatisfiable else None
    return None if error is None else str(error)


def _error_of(schema: Schema) -> ConstraintError | NotCompiledError | None:
    """What the validator or, of the schema as it is, the engine finds wrong."""
    try:
        check_schema(narrow_schema(whole_check(schema).settled))
    except (ConstraintError, NotCompiledError) as error:
        return error
    return None


def _tightest(
    schema: Schema, names: frozenset[str], vocabulary: Vocabulary
) -> _Grammar | NotCompiledError:
    """The first grammar that compiles; the first step's error where none does.

    `names` are all its keywords, and others. They spare most schemas two walks that change nothing.
    """
    takes_pattern = cache(_takes_pattern)
    first: NotCompiledError | None = None
    tried: Schema | None = None
    steps = list(STEPS)
    while steps:
        step = steps.pop(0)
        looser, loosened = schema, tuple[Loosened, ...]()
        if step or not has_only_enforced(names):
            looser, loosened = loosen(schema, step, takes_pattern)
        if looser == tried:
            continue
        tried = looser
        try:
            narrowed = looser if is_narrow(names) else narrow_schema(looser)
            return _compiled(narrowed, loosened, vocabulary)
        except NotCompiledError as error:
            first = first or error
            if error.is_over_budget:
                steps = [step for step in steps if step in COARSE_STEPS]
            elif error.is_unsatisfiable:
                steps = [step for step in steps if step in FINE_STEPS]
            if "oneOf" not in error.reason:
                steps = [step for step in steps if step != ONE_OF_STEP]
    assert first is not None
    return first


def _compiled(schema: Schema, loosened: tuple[Loosened, ...], vocabulary: Vocabulary) -> _Grammar:
    """Compile a step; one that needs a check anyway also gets the second order if it can."""
    # Of branches in two orders the engine cannot prove that they exclude each other.
    if loosened and not any("oneOf" in sub for _, sub in subschemas(schema)):
        both = with_second_order(schema)
        try:
            return _Grammar(both, *schema_matcher(both, vocabulary), loosened)
        except NotCompiledError as error:
            if any(reason in error.reason for reason in _REASONS_WITHOUT_ORDER):
                raise
    return _Grammar(schema, *schema_matcher(schema, vocabulary), loosened)


def _takes_pattern(pattern: str) -> bool:
    try:
        check_schema(narrow_schema({"type": "string", "pattern": pattern}))
    except NotCompiledError:
        return False
    return True
