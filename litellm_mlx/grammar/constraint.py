"""What a caller wants enforced, as one canonical `Constraint`: equal wishes become equal values.

Owns the checks that need no vocabulary: is it JSON Schema at all, how deep, how large. What the
backend makes of it is `compiler`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.json_schema import (
    ANNOTATIONS,
    LISTED_SCHEMAS,
    NAMED_SCHEMAS,
    SINGLE_SCHEMAS,
)
from litellm_mlx.types import Backend, Constraint

# Both are ours: far above what Pydantic writes, and low enough that no parser on the way (Python's
# recursion limit is 1,000 frames, serde_json's 128 levels) is the one that fails.
MAX_NESTING = 100
MAX_SOURCE_BYTES = 1_000_000

# Options of llguidance that a schema may carry; a caller must not change ours with them.
ENGINE_OPTIONS = "x-guidance"
_SAY_NOTHING = ANNOTATIONS | {ENGINE_OPTIONS}

# Tuples: a test against a union takes twice as long, and every value of every schema is tested.
_SCALARS = (str, bool, int)
_ARRAYS = (list, tuple)


def json_schema_constraint(
    schema: Mapping[str, Any] | bool, backend: Backend = "llguidance"
) -> Constraint:
    """Ask for JSON that a schema accepts; properties stay in the schema's order.

    Schemas that differ only in annotations, or in the order of keywords, give equal constraints.

    Raises:
        ConstraintError: not a JSON schema, nested too deep, too large, or it accepts nothing.
    """
    if schema is False:
        raise ConstraintError("the schema `false` accepts no text at all; give another")
    if not isinstance(schema, Mapping | bool):
        raise ConstraintError(
            f"a JSON schema is an object or a boolean, not {type(schema).__name__}"
        )
    return Constraint("json_schema", _dump(_canonical(schema, 0)), backend)


def json_object_constraint(backend: Backend = "llguidance") -> Constraint:
    """Ask for any JSON object."""
    return Constraint("json_schema", '{"type":"object"}', backend)


JSON_OBJECT = json_object_constraint()


def regex_constraint(pattern: str, backend: Backend = "llguidance") -> Constraint:
    """Ask for a text that a regex matches as a whole."""
    return Constraint("regex", _checked_text(pattern, "regex"), backend)


def choice_constraint(choices: Iterable[str], backend: Backend = "llguidance") -> Constraint:
    """Ask for one of some texts; their order and repetition mean nothing.

    Raises:
        ConstraintError: no choice, or one that is not text.
    """
    if isinstance(choices, str | bytes):
        raise ConstraintError("choices are a list of texts, not one text")
    given = list(choices)
    for choice in given:
        if not isinstance(choice, str):
            raise ConstraintError(f"a choice is a text, not {type(choice).__name__}")
    if not given:
        raise ConstraintError("there must be at least one choice")
    return Constraint("choice", _dump(sorted(set(given))), backend)


def grammar_constraint(grammar: str, backend: Backend = "llguidance") -> Constraint:
    """Ask for a text of a context-free grammar, in llguidance's Lark or in GBNF."""
    return Constraint("grammar", _checked_text(grammar, "grammar"), backend)


def _checked_text(text: object, what: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ConstraintError(f"a {what} is a text that is not blank, not {text!r:.40}")
    check_size(text, what)
    return text


def check_size(text: str, what: str) -> None:
    """Refuse a source text that is too large, or not text.

    Raises:
        ConstraintError: it is; the message has both sizes.
    """
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError as error:
        raise ConstraintError(f"the {what} holds half a surrogate pair: {error}") from None
    if size_bytes > MAX_SOURCE_BYTES:
        raise ConstraintError(
            f"the {what} has {size_bytes:,} bytes, the limit is {MAX_SOURCE_BYTES:,}; shorten it"
        )


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _dump(value: object) -> str:
    text = _ENCODER.encode(value)
    check_size(text, "constraint")
    return text


def _plain_json(value: object, depth: int) -> Any:
    """Copy a JSON value into plain dicts and lists; refuse what JSON has not."""
    if value is None or isinstance(value, _SCALARS):
        return value
    if isinstance(value, float):
        if value - value != 0:
            raise ConstraintError(f"JSON has no number {value}")
        return value
    if isinstance(value, Mapping):
        _check_depth(depth)
        return {name: _plain_json(value[name], depth + 1) for name in _names(value)}
    if isinstance(value, _ARRAYS):
        _check_depth(depth)
        return [_plain_json(item, depth + 1) for item in value]
    raise ConstraintError(f"a JSON schema holds JSON values, not {type(value).__name__}")


def _check_depth(depth: int) -> None:
    if depth > MAX_NESTING:
        raise ConstraintError(
            f"the schema is nested deeper than {MAX_NESTING} levels; use $defs and $ref"
        )


def _names(value: Mapping[Any, object]) -> list[str]:
    for key in value:
        if not isinstance(key, str):
            raise ConstraintError(f"a JSON schema has text as keys, not {key!r:.40}")
    return list(value)


def _canonical(schema: object, depth: int) -> Any:
    """Copy a schema without annotations and engine options, its keywords in one order.

    Elsewhere than where keywords stand, these are the caller's names. The names in `properties`
    keep their order, which is the order of generation.
    """
    if not isinstance(schema, Mapping):
        return _plain_json(schema, depth)
    _check_depth(depth)
    kept: dict[str, Any] = {}
    for key in sorted(_names(schema)):
        value = schema[key]
        if key in _SAY_NOTHING:
            continue
        if isinstance(value, _SCALARS):  # most
            kept[key] = value
        elif key in NAMED_SCHEMAS and isinstance(value, Mapping):
            kept[key] = {name: _canonical(value[name], depth + 2) for name in _names(value)}
        elif key in LISTED_SCHEMAS and isinstance(value, _ARRAYS):
            kept[key] = [_canonical(item, depth + 2) for item in value]
        elif key in SINGLE_SCHEMAS:
            kept[key] = _canonical(value, depth + 1)
        else:
            kept[key] = _plain_json(value, depth + 1)
    return kept
