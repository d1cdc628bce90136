"""Lets the properties of a loosened schema come in a second order: those required first.

The grammar engine writes properties in the order in which the schema lists them, which is the
order that a schema of tier "grammar" keeps. Where a check follows anyway, a model may also begin
with what is required, in the order of `required`, and go on with the rest as it likes: texts of
this kind are what models and people write, and the first of the two orders is still there. A
property that is not required might then come twice; the check refuses that.
"""

from __future__ import annotations

import re
from typing import Any

from litellm_mlx.grammar.drafts import defs_reference, has_nested_ids
from litellm_mlx.grammar.json_schema import Schema, map_with_paths

# The engine compares each two regexes of property names that are in one object; so many pairs take
# it some 20 ms (2 cores of an AMD EPYC, 2026-11-21).
MAX_PAIRS = 4_000

_PARTS = ("allOf", "anyOf", "oneOf", "$ref")
_KEPT = ("$defs", "definitions", "$id", "id", "$schema", "$anchor")
_OBJECT = ("properties", "required", "additionalProperties", "patternProperties")


def with_second_order(schema: Schema) -> Schema:
    """Copy a schema with both orders; texts in the first are accepted as before."""
    if isinstance(schema, bool) or has_nested_ids(schema):
        return schema
    definitions: dict[str, Schema] = {}
    num_pairs = 0

    def change(sub: Schema, pointer: str) -> Schema:
        if isinstance(sub, bool):
            return sub
        inner = map_with_paths(sub, lambda part, path: change(part, pointer + path))
        if "/allOf/" in pointer or not _is_plain_object(inner):
            return inner
        nonlocal num_pairs
        num_pairs += len(_optional(inner)) ** 2
        return _both(inner, pointer, definitions)

    changed = change(schema, "")
    if num_pairs > MAX_PAIRS:
        return schema
    if definitions:
        assert isinstance(changed, dict)
        changed["$defs"] = {**changed.get("$defs", {}), **definitions}
    return changed


def _is_plain_object(schema: dict[str, Any]) -> bool:
    """Whether it is an object with a second order to speak of, and nothing that intersects it."""
    properties, required = schema.get("properties"), schema.get("required", [])
    if not isinstance(properties, dict) or not properties or not isinstance(required, list):
        return False
    if any(key in schema for key in (*_PARTS, "minProperties", "maxProperties", "enum", "const")):
        return False
    optional = _optional(schema)
    if not properties.keys() >= set(required):
        return False
    if any(
        _may_match(key, name) for key in schema.get("patternProperties", ()) for name in optional
    ):
        return False
    is_open = schema.get("additionalProperties") is not False
    return bool(optional) or is_open or list(properties) != required


def _may_match(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:  # `\\p{L}`, and sets that Python has not
        return True


def _optional(schema: dict[str, Any]) -> list[str]:
    required = schema.get("required", [])
    return [name for name in schema["properties"] if name not in required]


def _both(schema: dict[str, Any], pointer: str, definitions: dict[str, Schema]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for name, sub in schema["properties"].items():
        key = f"{pointer}/properties/{name}"
        definitions[key] = sub
        named[name] = {"$ref": defs_reference(key)}
    required = list(dict.fromkeys(schema.get("required", [])))
    patterns = {f"^{_literal(name)}$": sub for name, sub in named.items() if name not in required}
    second = {
        "type": "object",
        "properties": {name: named[name] for name in required},
        "required": required,
        "patternProperties": {**patterns, **schema.get("patternProperties", {})},
        "additionalProperties": schema.get("additionalProperties", True),
    }
    first = {key: value for key, value in schema.items() if key not in _KEPT}
    kept = {key: value for key, value in schema.items() if key in _KEPT}
    return {**kept, "anyOf": [{**first, "properties": named}, second]}


def _literal(name: str) -> str:
    """Regex of a text as it stands, in every dialect."""
    return re.sub(r"([\\.+*?()\[\]{}^$|/-])", r"\\\1", name)
