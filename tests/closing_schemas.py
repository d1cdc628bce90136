"""Schemas whose texts are hard to end soon, one or more for each keyword that matters to it."""

from __future__ import annotations

from typing import Any

from litellm_mlx.grammar.compiler import Index, compile_constraint
from litellm_mlx.types import Constraint
from tests.grammar_sampling import small_vocabulary

VOCABULARY = small_vocabulary()


def closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required or properties),
        "additionalProperties": False,
    }


KIDS = {"type": "array", "items": {"$ref": "#/$defs/node"}}
TREE = {
    "$defs": {"node": closed({"value": {"type": "integer"}, "kids": KIDS})},
    "$ref": "#/$defs/node",
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "required": closed({"a": {"type": "string"}, "b": {"type": "number"}, "c": {"type": "null"}}),
    "optional before required": closed(
        {"o": {"type": "string"}, "must": {"type": "string"}}, "must"
    ),
    "nested": closed({"x": closed({"y": closed({"z": {"type": "boolean"}})})}),
    "minItems": {"type": "array", "items": closed({"n": {"type": "integer"}}), "minItems": 3},
    "prefixItems": {
        "type": "array",
        "prefixItems": [{"const": "a"}, {"const": 2}],
        "minItems": 2,
        "items": False,
    },
    "minLength": {"type": "string", "minLength": 50},
    "maxLength": {"type": "string", "minLength": 3, "maxLength": 3},
    "enum": {"enum": ["a long value of many words", "another", "x"]},
    "const": {"const": {"deep": [1, "two", None]}},
    "minimum": {"type": "integer", "minimum": 1234567},
    "exclusiveMinimum": {"type": "number", "exclusiveMinimum": 0, "maximum": 0.01},
    "multipleOf": {"type": "integer", "multipleOf": 7, "minimum": 100},
    "pattern of counts": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{12}-[a-f0-9]{20}$"},
    "pattern without anchors": {"type": "string", "pattern": r"\d{4}-\d{2}T\d{2}\.\d{3}"},
    "pattern of parts": {
        "type": "string",
        "pattern": r"^urn:([a-z0-9-]+):([a-z0-9.-]+):(\d+\.\d+)$",
    },
    "two patterns": closed(
        {
            "a": {"type": "string", "pattern": "^[a-z]+@[a-z]+$"},
            "b": {"type": "string", "pattern": "^#[0-9A-F]{6}$"},
        }
    ),
    "date-time": {"type": "string", "format": "date-time"},
    "email": {"type": "string", "format": "email"},
    "uuid": {"type": "string", "format": "uuid"},
    "ipv6": {"type": "string", "format": "ipv6"},
    "anyOf": {"anyOf": [closed({"long_name_of_a_property": {"type": "string"}}), {"type": "null"}]},
    "allOf": {"allOf": [{"type": "string", "minLength": 2}, {"pattern": "^[xyz]*$"}]},
    "patternProperties": {
        "type": "object",
        "patternProperties": {"^k[0-9]$": {"type": "integer"}},
        "additionalProperties": False,
    },
    "additionalProperties": {
        "type": "object",
        "additionalProperties": {"type": "integer"},
        "required": ["inner"],
    },
    "recursive": TREE,
    "anything": {},
}


def compiled(constraint: Constraint) -> Index:
    return compile_constraint(constraint, VOCABULARY)
