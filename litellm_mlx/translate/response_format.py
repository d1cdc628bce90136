"""`response_format` to a constraint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litellm_mlx.errors import ConstraintError, UnsupportedParameterError
from litellm_mlx.grammar.constraint import json_schema_constraint
from litellm_mlx.types import Backend, Constraint


def constraint_of(response_format: Mapping[str, Any] | None, backend: Backend) -> Constraint | None:
    """The constraint that a request's `response_format` asks for; `None` for free text.

    Raises:
        UnsupportedParameterError: an unknown type.
        ConstraintError: the schema is missing or is not one.
    """
    if response_format is None:
        return None
    kind = response_format.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        schema = response_format.get("response_schema") or {"type": "object"}
        return json_schema_constraint(schema, backend)
    if kind == "json_schema":
        return json_schema_constraint(_schema_in(response_format), backend)
    raise UnsupportedParameterError(
        f"response_format type {kind!r} is not supported; use 'text', 'json_object' or "
        "'json_schema'"
    )


def _schema_in(response_format: Mapping[str, Any]) -> Any:
    wrapper = response_format.get("json_schema")
    if isinstance(wrapper, Mapping) and "schema" in wrapper:
        return wrapper["schema"]
    raise ConstraintError(
        "response_format of type 'json_schema' needs its schema at json_schema.schema"
    )
