"""`response_format` to a constraint."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from litellm_mlx.errors import ConstraintError, UnsupportedParameterError
from litellm_mlx.grammar.constraint import json_schema_constraint
from litellm_mlx.types import Backend, Constraint

# Ours: LiteLLM passes response formats that it does not know unchanged.
OUTPUT_TYPE = "litellm_mlx"

# OpenAI's wrapper around a schema; what is in it is always enforced, `strict` or not.
_WRAPPER_KEYS = frozenset({"name", "description", "schema", "strict"})
# What may stand beside each type. A schema stands in the wrapper, or bare: `schema` is
# llama.cpp's, Together's, Fireworks' and Cohere's, `response_schema` is LiteLLM's, which reads
# `enforce_validation` itself.
_BARE_SCHEMAS = frozenset({"schema", "response_schema", "enforce_validation"})
_KEYS: Mapping[str, frozenset[str]] = {
    "text": frozenset(),
    "json_object": _BARE_SCHEMAS | {"strict"},
    "json_schema": _BARE_SCHEMAS | {"json_schema", "name", "description", "strict"},
}


def constraint_of(response_format: Mapping[str, Any] | None, backend: Backend) -> Constraint | None:
    """The constraint that a request's `response_format` asks for; `None` for free text.

    Raises:
        UnsupportedParameterError: an unknown type, or a key that we do not honour.
        ConstraintError: the schema is missing or is not one.
    """
    if response_format is None:
        return None
    kind = response_format.get("type")
    if kind == OUTPUT_TYPE:
        _check_keys(response_format, {"kind", "source"})
        return Constraint(response_format["kind"], response_format["source"], backend)
    if not isinstance(kind, str) or kind not in _KEYS:
        raise UnsupportedParameterError(
            f"response_format type {kind!r} is not supported; use 'text', 'json_object' or "
            "'json_schema'"
        )
    _check_keys(response_format, _KEYS[kind])
    if kind == "text":
        return None
    schemas = list(_schemas_in(response_format))
    if len(schemas) > 1:
        raise UnsupportedParameterError(
            f"response_format has two schemas, {schemas[0][0]} and {schemas[1][0]}; send one"
        )
    if schemas:
        return json_schema_constraint(schemas[0][1], backend)
    if kind == "json_object":
        return json_schema_constraint({"type": "object"}, backend)
    raise ConstraintError(
        "response_format of type 'json_schema' needs its schema at json_schema.schema"
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


def _schemas_in(response_format: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every schema that it names, and where; an empty one beside `json_object` says nothing."""
    wrapper = response_format.get("json_schema")
    if wrapper is not None:
        if not isinstance(wrapper, Mapping):
            raise ConstraintError("response_format.json_schema is an object that holds a schema")
        _check_keys(wrapper, _WRAPPER_KEYS, "response_format.json_schema")
        if "schema" in wrapper:
            yield "json_schema.schema", wrapper["schema"]
    for key in ("schema", "response_schema"):
        schema = response_format.get(key)
        if schema is not None and (schema != {} or response_format["type"] == "json_schema"):
            yield key, schema


def _check_keys(
    given: Mapping[str, Any], known: Collection[str], where: str = "response_format"
) -> None:
    """Refuse what would otherwise pass unseen; a key of `None` says nothing."""
    for key, value in given.items():
        if key != "type" and key not in known and value is not None:
            allowed = ", ".join(sorted(known)) or "none beside type"
            raise UnsupportedParameterError(
                f"{where}.{key} is not known for type {given.get('type', 'json_schema')!r}; "
                f"known are: {allowed}"
            )
