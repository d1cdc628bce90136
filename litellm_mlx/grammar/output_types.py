"""Outlines' output types as constraints: whatever its generators take, callers may pass here.

Owns the border to `outlines.types`, which takes about 0.7 s to import, so only when it is used.
What the constraint means is `constraint`.
"""

from __future__ import annotations

import json
from typing import Any, get_origin

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.constraint import (
    choice_constraint,
    grammar_constraint,
    json_object_constraint,
    json_schema_constraint,
    regex_constraint,
)
from litellm_mlx.types import Backend, Constraint


def output_type_constraint(output_type: Any, backend: Backend = "llguidance") -> Constraint:
    """Ask for the text of an Outlines output type.

    Args:
        output_type: an Outlines term (`JsonSchema`, `Regex`, `CFG`, `Choice`, `a | b`, ...), or a
            Python type that Outlines takes: a Pydantic model, TypedDict, dataclass, Literal,
            Enum, int, list[...]. Containers are JSON.
        backend: compiles it.

    Raises:
        ConstraintError: Outlines has no term for it, or we do not take the term.
    """
    from outlines.types import CFG, Choice, JsonSchema
    from outlines.types.dsl import python_types_to_terms, to_regex
    from pydantic import TypeAdapter

    if output_type is dict:
        return json_object_constraint(backend)
    try:
        if get_origin(output_type) in (list, tuple, dict):
            return json_schema_constraint(TypeAdapter(output_type).json_schema(), backend)
        term = python_types_to_terms(output_type)
        if isinstance(term, JsonSchema):
            return _json_schema(term.schema, term.whitespace_pattern, backend)
        if isinstance(term, CFG):
            return grammar_constraint(term.definition, backend)
        if isinstance(term, Choice) and all(isinstance(item, str) for item in term.items):
            return choice_constraint(term.items, backend)
        return regex_constraint(to_regex(term), backend)
    except (TypeError, NotImplementedError, RecursionError, ValueError) as error:
        raise ConstraintError(f"Outlines cannot express {output_type!r:.100}: {error}") from error


def _json_schema(schema: str, whitespace_pattern: str | None, backend: Backend) -> Constraint:
    if whitespace_pattern is not None:
        raise ConstraintError(
            "`whitespace_pattern` is not taken: separators are always those of json.dumps"
        )
    return json_schema_constraint(json.loads(schema), backend)
