"""`response_format` to a constraint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litellm_mlx.errors import ConstraintError, UnsupportedParameterError
from litellm_mlx.grammar.constraint import json_schema_constraint
from litellm_mlx.types import Backend, Constraint

# Ours: LiteLLM passes response formats that it does not know unchanged.
OUTPUT_TYPE = "litellm_mlx"


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
    if kind == OUTPUT_TYPE:
        return Constraint(response_format["kind"], response_format["source"], backend)
    raise UnsupportedParameterError(
        f"response_format type {kind!r} is not supported; use 'text', 'json_object' or "
        "'json_schema'"
    )


def response_format(output_type: Any) -> dict[str, Any]:
    """Give the `response_format` that asks for an Outlines output type, or a Python type.

    Args:
        output_type: what Outlines' generators take: `Regex(...)`, `CFG(...)`, `Choice([...])`,
            `JsonSchema(...)`, `types.email`, a Literal, an Enum, a Pydantic model, `list[int]`.

    Raises:
        ConstraintError: Outlines cannot express it.

    Cost: imports Outlines, about a second, at the first call.
    """
    from litellm_mlx.grammar.output_types import output_type_constraint

    constraint = output_type_constraint(output_type)
    return {"type": OUTPUT_TYPE, "kind": constraint.kind, "source": constraint.source}


def _schema_in(response_format: Mapping[str, Any]) -> Any:
    wrapper = response_format.get("json_schema")
    if isinstance(wrapper, Mapping) and "schema" in wrapper:
        return wrapper["schema"]
    raise ConstraintError(
        "response_format of type 'json_schema' needs its schema at json_schema.schema"
    )
