"""Proves that no JSON value satisfies two of several schemas, so that `oneOf` is `anyOf`.

Owns the proof only. It looks at types, constants, and what objects must or must not have; it
answers False where it cannot see, never the other way round.
"""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any
from urllib.parse import unquote

_ALL_TYPES = frozenset({"string", "number", "object", "array", "boolean", "null"})
_MAX_DEPTH = 8  # tags lie one or two levels down; the bound is for recursive schemas
_MAX_STEPS = 20_000  # pairs of schemas looked at, about 50 ms; enough for 100 tagged branches


def are_disjoint(branches: object, root: object) -> bool:
    """Whether `branches` is a list of schemas of which no value satisfies two.

    Args:
        branches: what `oneOf` holds.
        root: the whole schema, for `$ref`.
    """
    if not isinstance(branches, list) or not branches:
        return False
    proof = _Proof(root)
    return all(proof.disjoint(a, b, _MAX_DEPTH) for a, b in combinations(branches, 2))


class _Proof:
    """One proof about one document, with the steps it may still take."""

    def __init__(self, root: object) -> None:
        self._root = root
        self._num_steps_left = _MAX_STEPS

    def disjoint(self, a: Any, b: Any, depth: int) -> bool:
        """Whether no value satisfies both schemas, as far as can be seen."""
        self._num_steps_left -= 1
        if a is False or b is False:
            return True
        if not isinstance(a, dict) or not isinstance(b, dict):
            return False
        if depth == 0 or self._num_steps_left < 0:
            return False
        types = _types(a) & _types(b)
        if not types:
            return True
        values_a, values_b = _values(a), _values(b)
        if values_a is not None and values_b is not None:
            return not values_a & values_b
        if types == {"object"} and (self._tagged(a, b, depth) or self._tagged(b, a, depth)):
            return True
        return self._part_disjoint(a, b, depth) or self._part_disjoint(b, a, depth)

    def _part_disjoint(self, a: dict[str, Any], b: dict[str, Any], depth: int) -> bool:
        """Whether something that every value of `a` satisfies keeps it from `b`."""
        return any(self.disjoint(part, b, depth - 1) for part in _conjuncts(a, self._root))

    def _tagged(self, a: dict[str, Any], b: dict[str, Any], depth: int) -> bool:
        """Whether a property that `a` requires is one that `b` lacks, or has with other values."""
        required = a.get("required")
        for name in required if isinstance(required, list) else []:
            there = _property(b, name)
            if there is False or self.disjoint(_property(a, name), there, depth - 1):
                return True
        return False


def _conjuncts(schema: dict[str, Any], root: object) -> list[Any]:
    """Other schemas that hold for every value of this one."""
    parts = schema.get("allOf")
    found = list(parts) if isinstance(parts, list) else []
    if "$ref" in schema:
        found.append(resolve(schema["$ref"], root))
    return found


def resolve(reference: object, root: object) -> Any:
    """Follow a pointer into this document; None where there is nothing, or another document."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    for step in reference[2:].split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(root, dict) and name not in root:
            name = unquote(name)
        if isinstance(root, dict) and name in root:
            root = root[name]
        elif isinstance(root, list) and name.isdecimal() and int(name) < len(root):
            root = root[int(name)]
        else:
            return None
    return root


def _types(schema: dict[str, Any]) -> frozenset[str]:
    """JSON types that the schema's values may have; an integer is a number."""
    given = schema.get("type")
    names = [given] if isinstance(given, str) else given
    types = _ALL_TYPES
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        types = frozenset("number" if name == "integer" else name for name in names)
    values = _plain_values(schema)
    return types if values is None else types & {_type_of(value) for value in values}


def _plain_values(schema: dict[str, Any]) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    values = schema.get("enum")
    return values if isinstance(values, list) else None


def _values(schema: dict[str, Any]) -> frozenset[str] | None:
    """All values of the schema in comparable form; None where they are not listed."""
    values = _plain_values(schema)
    return None if values is None else frozenset(_comparable(value) for value in values)


def _comparable(value: Any) -> str:
    """Text that is equal for equal JSON values; 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, dict | list):
        return "any container"  # their numbers compare inside, too; be safe
    return json.dumps(value)


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    names = {str: "string", dict: "object", list: "array", type(None): "null"}
    return names[type(value)]


def _property(schema: dict[str, Any], name: object) -> Any:
    """Schema that the property of this name must satisfy, as far as it is plain to see."""
    properties = schema.get("properties")
    if isinstance(properties, dict) and name in properties:
        return properties[name]
    is_closed = schema.get("additionalProperties") is False
    return not is_closed or "patternProperties" in schema
