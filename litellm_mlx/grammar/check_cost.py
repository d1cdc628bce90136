"""Tells schemas that are cheap to validate against from those that may hold up the interpreter.

The validator holds the interpreter for as long as it works. It visits a subschema once for each way
that leads to it, so references in `anyOf` and its like multiply, and in a recursive schema they
multiply again with each level of the text.
"""

from __future__ import annotations

import re
from typing import Any

from litellm_mlx.grammar.disjoint import resolve
from litellm_mlx.grammar.json_schema import Schema

# Building took 0.8 us per JSON value of the schema, and up to 5 ms for a regex that counts
# (2 cores of an AMD EPYC, jsonschema_rs 0.60.3, 2026-11-21): all limits together are about 50 ms.
MAX_VALUES = 10_000
MAX_VISITS = 20_000
MAX_PATTERNS = 500
MAX_COUNTING_PATTERNS = 8
_COUNTING = re.compile(r"\{\d*,?\d{2,}\}|\{\d+,\}|\\[pP]")

_IN_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
_SAME_MEMBER = ("patternProperties", "dependencies")
_MEMBER = ("properties", "additionalProperties", "unevaluatedProperties", "propertyNames")
_NAMED = ("properties", "patternProperties", "dependencies", "dependentSchemas")
_ITEM = ("items", "prefixItems", "additionalItems", "unevaluatedItems")
_SAME_ITEM = ("contains",)


def is_cheap_to_build(schema: Schema) -> bool:
    """Whether the validator is built in some milliseconds."""
    num_values, patterns = _survey(schema)
    counting = sum(1 for pattern in patterns if _COUNTING.search(pattern))
    is_small = num_values <= MAX_VALUES and len(patterns) <= MAX_PATTERNS
    return is_small and counting <= MAX_COUNTING_PATTERNS


def is_cheap_to_run(schema: Schema) -> bool:
    """Whether each part of a text is visited a limited number of times, however deep it is."""
    return _Visits(schema).are_few()


def _survey(schema: Schema) -> tuple[int, list[str]]:
    """Number of JSON values, and every text that may be a regex."""
    num_values, patterns, todo = 0, [], [schema]
    while todo and num_values <= MAX_VALUES:
        at: Any = todo.pop()
        num_values += 1
        if isinstance(at, dict):
            todo += at.values()
            named = at.get("patternProperties")
            patterns += [at["pattern"]] if isinstance(at.get("pattern"), str) else []
            patterns += list(named) if isinstance(named, dict) else []
        elif isinstance(at, list):
            todo += at
    return num_values, patterns


class _Visits:
    """Counts the visits on a way into a text, and finds recursion that multiplies them."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._counts: dict[str, int] = {}
        self._open: set[str] = set()
        self._recursive: set[str] = set()

    def are_few(self) -> bool:
        """Whether no level of the text, nor its depth, multiplies the visits."""
        if self._count(self._root) > MAX_VISITS:
            return False
        return not self._recursive or self._is_linear()

    def _count(self, schema: Any) -> int:
        """Most visits of schemas on one way into a text, recursion left out."""
        if not isinstance(schema, dict):
            return 1
        in_place, member, same_member, item, same_item = _groups(schema)
        total = 1 + sum(map(self._count, in_place))
        into_member = self._most(member) + sum(map(self._count, same_member))
        total += max(into_member, self._most(item) + sum(map(self._count, same_item)))
        reference = schema.get("$ref")
        total += self._count_target(reference) if isinstance(reference, str) else 0
        return min(total, MAX_VISITS + 1)

    def _most(self, parts: list[Any]) -> int:
        return max(map(self._count, parts), default=0)

    def _count_target(self, reference: str) -> int:
        if reference in self._open:
            self._recursive.add(reference)
            return 1
        if reference not in self._counts:
            self._open.add(reference)
            self._counts[reference] = self._count(_target(reference, self._root))
            self._open.discard(reference)
        return self._counts[reference]

    def _is_linear(self) -> bool:
        """Whether every schema leads on to a recursive one in one way at most."""
        reaching: dict[str, bool] = {}

        def reaches(part: Any) -> bool:
            if not isinstance(part, dict):
                return False
            reference = part.get("$ref")
            if isinstance(reference, str) and target_reaches(reference):
                return True
            return any(reaches(inner) for parts in _groups(part) for inner in parts)

        def target_reaches(reference: str) -> bool:
            if reference in self._recursive:
                return True
            if reference not in reaching:
                reaching[reference] = False
                reaching[reference] = reaches(_target(reference, self._root))
            return reaching[reference]

        def is_linear(schema: Any) -> bool:
            if not isinstance(schema, dict):
                return True
            in_place, member, same_member, item, same_item = _groups(schema)
            reference = schema.get("$ref")
            ways = sum(map(reaches, in_place))
            ways += isinstance(reference, str) and target_reaches(reference)
            into_member = any(map(reaches, member)) + sum(map(reaches, same_member))
            into_item = any(map(reaches, item)) + sum(map(reaches, same_item))
            ways += max(into_member, into_item)
            return ways <= 1 and all(is_linear(part) for parts in _groups(schema) for part in parts)

        targets = [_target(reference, self._root) for reference in self._counts]
        return all(map(is_linear, [self._root, *targets]))


def _groups(schema: dict[str, Any]) -> list[list[Any]]:
    """Its subschemas, by whether several of a group are about one and the same value."""
    groups = (_IN_PLACE, _MEMBER, _SAME_MEMBER, _ITEM, _SAME_ITEM)
    return [_parts(schema, keys) for keys in groups]


def _parts(schema: dict[str, Any], keys: tuple[str, ...]) -> list[Any]:
    found: list[Any] = []
    for key in keys:
        value = schema.get(key)
        if isinstance(value, list):
            found += value
        elif isinstance(value, dict):
            found += value.values() if key in _NAMED else [value]
    return found


def _target(reference: str, root: Schema) -> Any:
    return root if reference == "#" else resolve(reference, root)
