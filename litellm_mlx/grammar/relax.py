"""Loosens a JSON schema until the grammar engine takes it, and says which keywords it cost.

Owns what llguidance 1.9.1 cannot do, keyword by keyword. Every step accepts all that the schema
accepts, and more; the finished text is then validated against the schema as it was (`check`).
Which step is needed is found out by `tiers`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

from litellm_mlx.grammar.disjoint import are_disjoint, resolve
from litellm_mlx.grammar.json_schema import DECIMAL, Schema, map_with_paths
from litellm_mlx.grammar.numbers import is_exact_constant
from litellm_mlx.grammar.patterns import name_pattern, value_pattern

Liberty = Literal[
    "one_of",
    "fixed",
    "dead",
    "patterns",
    "overlaps",
    "cycles",
    "counts",
    "numbers",
    "parts",
    "branches",
    "texts",
    "depth",
]

# From the finest to the coarsest; each step also takes the liberties of those before it. Most
# schemas stop at the first or second.
_NEW_LIBERTIES: tuple[tuple[Liberty, ...], ...] = (
    (),
    ("one_of",),
    ("fixed", "dead", "patterns", "overlaps", "cycles"),
    ("counts", "numbers"),
    ("parts",),
    ("branches", "texts", "depth"),
)
STEPS: tuple[frozenset[Liberty], ...] = tuple(
    frozenset(chain.from_iterable(_NEW_LIBERTIES[:end]))
    for end in range(1, len(_NEW_LIBERTIES) + 1)
)
# Where a limit of the engine was met, fine steps only cost time. Where it says that nothing
# satisfies the schema, coarse ones would only hide that.
COARSE_STEPS = STEPS[-2:]
FINE_STEPS = STEPS[:3]
ONE_OF_STEP = STEPS[1]

MAX_KEPT_DEPTH = 3  # schemas inside each other that the coarsest step keeps

_WHY_NOT = {
    **dict.fromkeys(("not", "if", "then", "else"), "a grammar cannot say what a text is not"),
    **dict.fromkeys(
        ("uniqueItems", "contains", "minContains", "maxContains"),
        "a grammar cannot compare or count items",
    ),
    **dict.fromkeys(
        ("dependencies", "dependentRequired", "dependentSchemas", "propertyNames"),
        "the grammar engine has no such keyword",
    ),
    **dict.fromkeys(
        ("unevaluatedItems", "unevaluatedProperties"),
        "it depends on what other keywords have matched",
    ),
    **dict.fromkeys(("$dynamicRef", "$recursiveRef"), "its target depends on who refers to it"),
}
# The anchors say nothing once no reference uses them.
_NOT_THE_ENGINES = frozenset(_WHY_NOT) | {"$dynamicAnchor", "$recursiveAnchor"}
_LOOKED_AT = _NOT_THE_ENGINES | set(
    "const enum pattern patternProperties minProperties maxProperties".split()
)
_LOOK_AROUND = re.compile(r"\(\?<?[=!]")
_NAMING_KEYWORDS = frozenset(
    {"properties", "patternProperties", "required", "unevaluatedProperties"}
)
_READ_DIFFERENTLY = "engines read the regex differently"
_COUNTS = ("minProperties", "maxProperties")
_NUMBERS = (
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minItems", "maxItems", "minLength", "maxLength"),
)
_OF_OBJECTS = ("patternProperties", "additionalProperties", "minProperties", "maxProperties")
_PARTS = ("allOf", "oneOf", "anyOf", "$ref")
_LEAF_KEYWORDS = frozenset({"type", "enum", "const"})


@dataclass(frozen=True, slots=True)
class Loosened:
    """A keyword that the grammar does not enforce, or not in full, and why.

    What is inside of one that `is_gone` is not in the grammar either.
    """

    pointer: str
    keyword: str
    reason: str
    is_gone: bool = True


@dataclass(slots=True)
class _Walk:
    """One walk over a schema with some liberties; gathers what it loosened."""

    root: Schema
    liberties: frozenset[Liberty]
    takes_pattern: Callable[[str], bool]
    loosened: list[Loosened] = field(default_factory=list)
    # What the liberties do at each schema, in their order.
    _changes: list[Change] = field(init=False)

    def __post_init__(self) -> None:
        self._changes = [change for name, change in _LIBERTIES.items() if name in self.liberties]

    def schema(self, schema: Schema, pointer: str, depth: int) -> Schema:
        if isinstance(schema, bool):
            return schema
        kept = dict(schema)
        if not _NOT_THE_ENGINES.isdisjoint(schema):
            schema = _with_named_patterns(schema)
            kept = dict(schema)
            for key in sorted(schema.keys() & _NOT_THE_ENGINES):
                if _says_something(key, schema):
                    self._note(pointer, key, _WHY_NOT[key])
                del kept[key]
        if "const" in kept or "enum" in kept:
            self._loosen_constants(kept, pointer)
        if "pattern" in kept or "patternProperties" in kept:
            self._loosen_unreadable(kept, pointer)
        if "minProperties" in kept or "maxProperties" in kept:
            self._loosen_counts(kept, pointer)
        for change in self._changes:
            change(self, kept, pointer)
        if "depth" in self.liberties and depth >= MAX_KEPT_DEPTH:
            deep = [key for key in kept if key not in _LEAF_KEYWORDS]
            self._drop(kept, pointer, deep, "it is too deep in too large a schema")
        return map_with_paths(
            kept, lambda sub, path: self.schema(sub, pointer + path, depth + _is_nested(path))
        )

    def _drop(self, schema: dict[str, Any], pointer: str, keys: Iterable[str], why: str) -> None:
        for key in keys:
            del schema[key]
            self._note(pointer, key, why)

    def _note(self, pointer: str, key: str, why: str, *, is_gone: bool = True) -> None:
        self.loosened.append(Loosened(f"{pointer}/{key}", key, why, is_gone))

    def _loosen_constants(self, schema: dict[str, Any], pointer: str) -> None:
        """Ask for the type only where the engine would write another value."""
        for key, values in (("const", [schema.get("const")]), ("enum", schema.get("enum"))):
            if key not in schema or not isinstance(values, list):
                continue
            if all(map(is_exact_constant, values)):
                continue
            schema.setdefault("type", sorted({_type_of(value) for value in values}))
            self._drop(schema, pointer, [key], "the engine would write a value differently")

    def _loosen_unreadable(self, schema: dict[str, Any], pointer: str) -> None:
        pattern = schema.get("pattern")
        if pattern is not None and pattern != DECIMAL:  # that one is rewritten
            if _LOOK_AROUND.search(pattern):
                self._drop(schema, pointer, ["pattern"], "a grammar cannot look around")
            elif value_pattern(pattern) is None:
                self._drop(schema, pointer, ["pattern"], _READ_DIFFERENTLY)
        if any(name_pattern(name) is None for name in _dict(schema.get("patternProperties"))):
            self._open_patterns(schema, pointer, _READ_DIFFERENTLY)

    def _loosen_counts(self, schema: dict[str, Any], pointer: str) -> None:
        """Leave only counts of properties that the engine takes and that its texts keep.

        It has none beside optional properties. It counts a key that is written twice as two.
        """
        num_required = len(set(_names(schema.get("required"))))
        properties = _dict(schema.get("properties"))
        is_closed = schema.get("additionalProperties") is False and not schema.get(
            "patternProperties"
        )
        if schema.get("minProperties", num_required + 1) <= num_required:
            del schema["minProperties"]
        if is_closed and schema.get("maxProperties", -1) >= len(properties):
            del schema["maxProperties"]
        if properties.keys() - set(_names(schema.get("required"))):
            self._drop(schema, pointer, _present(schema, _COUNTS), "some properties are optional")
        elif schema.get("minProperties", 0) > num_required + 1:
            self._note(pointer, "minProperties", "a key may be written twice", is_gone=False)

    def _loosen_one_of(self, schema: dict[str, Any], pointer: str) -> None:
        if "oneOf" not in schema:
            return
        why = "two branches may hold at once; the grammar has `anyOf`"
        self._note(pointer, "oneOf", why, is_gone=False)
        branches = schema.pop("oneOf")
        if "anyOf" in schema:
            schema["allOf"] = [*schema.get("allOf", []), {"anyOf": branches}]
        else:
            schema["anyOf"] = branches

    def _loosen_patterns(self, schema: dict[str, Any], pointer: str) -> None:
        pattern = schema.get("pattern")
        if isinstance(pattern, str) and not self.takes_pattern(pattern):
            self._drop(schema, pointer, ["pattern"], "the engine does not take the regex")
        if not all(map(self.takes_pattern, _dict(schema.get("patternProperties")))):
            self._open_patterns(schema, pointer, "the engine does not take a regex of it")

    def _loosen_overlaps(self, schema: dict[str, Any], pointer: str) -> None:
        if len(_dict(schema.get("patternProperties"))) > 1:
            self._open_patterns(schema, pointer, "two regexes may match one name")

    def _open_patterns(self, schema: dict[str, Any], pointer: str, why: str) -> None:
        """Drop `patternProperties`; what it matched is no longer among the properties known."""
        self._drop(schema, pointer, _present(schema, ("patternProperties",)), why)
        self._drop(schema, pointer, _present(schema, ("additionalProperties",)), why)

    def _loosen_cycles(self, schema: dict[str, Any], pointer: str) -> None:
        reference = schema.get("$ref")
        siblings = [key for key in schema if key not in _BESIDE_REF]
        if siblings and isinstance(reference, str) and _is_recursive(reference, self.root):
            self._drop(schema, pointer, siblings, "it is beside a recursive `$ref`")

    def _loosen_fixed(self, schema: dict[str, Any], pointer: str) -> None:
        """Leave a listed object alone: beside `patternProperties` the engine finds none of them."""
        if "const" in schema or "enum" in schema:
            keys = _present(schema, _OF_OBJECTS)
            self._drop(schema, pointer, keys, "the values are listed, and few enough to check")

    def _loosen_dead(self, schema: dict[str, Any], pointer: str) -> None:
        """Leave out a choice of which no branch fits the type; the engine would give up."""
        branches = schema.get("anyOf")
        if "type" not in schema or not isinstance(branches, list):
            return
        own = {"type": schema["type"]}
        if all(are_disjoint([own, branch], self.root) for branch in branches):
            self._drop(schema, pointer, ["anyOf"], "no branch fits the type")

    def _loosen_counts_wholly(self, schema: dict[str, Any], pointer: str) -> None:
        self._drop(schema, pointer, _present(schema, _COUNTS), "the engine cannot count these")

    def _loosen_numbers(self, schema: dict[str, Any], pointer: str) -> None:
        self._drop(schema, pointer, _present(schema, _NUMBERS), "the engine has no such range")

    def _loosen_parts(self, schema: dict[str, Any], pointer: str) -> None:
        """Leave one thing to satisfy: the schema's own keywords, or one of its parts."""
        parts = _present(schema, _PARTS)
        has_own = any(key in schema for key in ("properties", "items", "enum", "const"))
        why = "the engine cannot intersect it with the rest"
        if has_own:
            self._drop(schema, pointer, parts, why)
        elif parts:
            self._drop(schema, pointer, parts[1:], why)
            if parts[0] == "allOf" and len(schema["allOf"]) > 1:
                self._note(pointer, "allOf", why)
                schema["allOf"] = schema["allOf"][:1]

    def _loosen_branches(self, schema: dict[str, Any], pointer: str) -> None:
        if "type" in schema:
            parts = _present(schema, _PARTS)
            self._drop(schema, pointer, parts, "the engine cannot intersect it with the type")

    def _loosen_texts(self, schema: dict[str, Any], pointer: str) -> None:
        why = "the engine met a limit"
        self._drop(schema, pointer, _present(schema, ("pattern", "format")), why)
        if "patternProperties" in schema:
            self._open_patterns(schema, pointer, why)


# In the order in which they are taken; the depth is seen to by the walk.
Change = Callable[[_Walk, dict[str, Any], str], None]
_LIBERTIES: dict[Liberty, Change] = {
    "one_of": _Walk._loosen_one_of,
    "fixed": _Walk._loosen_fixed,
    "dead": _Walk._loosen_dead,
    "patterns": _Walk._loosen_patterns,
    "overlaps": _Walk._loosen_overlaps,
    "cycles": _Walk._loosen_cycles,
    "counts": _Walk._loosen_counts_wholly,
    "numbers": _Walk._loosen_numbers,
    "parts": _Walk._loosen_parts,
    "branches": _Walk._loosen_branches,
    "texts": _Walk._loosen_texts,
}
_BESIDE_REF = frozenset({"$ref", "$defs", "definitions", "$id", "id", "$schema", "$anchor"})


def loosen(
    schema: Schema, liberties: frozenset[Liberty], takes_pattern: Callable[[str], bool]
) -> tuple[Schema, tuple[Loosened, ...]]:
    """Copy a schema without what the engine cannot enforce.

    Args:
        schema: as the caller wrote it, in the form that `drafts.settle` gives.
        liberties: what else may be loosened, see `STEPS`.
        takes_pattern: whether the engine takes a regex.

    Returns:
        A schema that accepts at least as much, and each keyword that it lacks.
    """
    walk = _Walk(schema, liberties, takes_pattern)
    return walk.schema(schema, "", 0), tuple(walk.loosened)


def has_only_enforced(names: Collection[str]) -> bool:
    """Whether `loosen` with no liberties leaves schemas of these keywords as they are.

    Args:
        names: all keywords; others among them do no harm.
    """
    return _LOOKED_AT.isdisjoint(names)


def _says_something(key: str, schema: dict[str, Any]) -> bool:
    """Whether a keyword that the engine lacks has a meaning where it stands."""
    value = schema[key]
    if key not in _WHY_NOT:
        return False
    if key in ("then", "else"):
        return "if" in schema and not _holds_always(value)
    if key in ("minContains", "maxContains"):
        return "contains" in schema
    if key == "if":
        return any(not _holds_always(schema.get(branch)) for branch in ("then", "else"))
    if key in ("dependencies", "dependentRequired", "dependentSchemas"):
        return not all(needs == [] or _holds_always(needs) for needs in value.values())
    if key == "uniqueItems":
        return bool(value) and schema.get("maxItems", 2) > 1
    if key == "not":
        return value is not False
    if key == "propertyNames":
        return not _holds_always(value, of_type="string")
    return key == "contains" or not _holds_always(value)


def _with_named_patterns(schema: dict[str, Any]) -> dict[str, Any]:
    """Say with `patternProperties` what `propertyNames` says, where that is one regex."""
    names = schema.get("propertyNames")
    if not isinstance(names, dict) or not names.keys() <= {"pattern", "type"}:
        return schema
    pattern = names.get("pattern")
    if pattern is None or names.get("type", "string") != "string" or _LOOK_AROUND.search(pattern):
        return schema
    if value_pattern(pattern) is None or not schema.keys().isdisjoint(_NAMING_KEYWORDS):
        return schema
    kept = {key: value for key, value in schema.items() if key != "propertyNames"}
    named = {pattern: schema.get("additionalProperties", True)}
    return {**kept, "patternProperties": named, "additionalProperties": False}


def _holds_always(schema: Any, of_type: str | None = None) -> bool:
    """Whether a schema plainly takes every value, or every one of a type; so does one left out."""
    if not isinstance(schema, dict):
        return schema is None or schema is True
    return all(_adds_nothing(key, value, of_type) for key, value in schema.items())


def _adds_nothing(key: str, value: Any, of_type: str | None) -> bool:
    if key == "type":
        return of_type is not None and of_type in ([value] if isinstance(value, str) else value)
    if key in ("minLength", "minItems", "minProperties"):
        return bool(value == 0)
    if key in ("required", "allOf", "dependentRequired"):
        return not value or (key == "allOf" and all(_holds_always(s, of_type) for s in value))
    if key in ("properties", "patternProperties"):
        return all(map(_holds_always, value.values()))
    if key in ("items", "additionalProperties"):
        return isinstance(value, dict | bool) and _holds_always(value)
    return key in ("$defs", "definitions", "$schema", "$comment")


def _is_nested(path: str) -> bool:
    """Whether a subschema is about a part of the value, rather than about the value itself."""
    keyword = path.split("/", 2)[1]
    return keyword not in ("allOf", "anyOf", "oneOf", "$defs", "definitions")


def _is_recursive(reference: str, root: Schema) -> bool:
    """Whether following a reference leads back to it."""
    seen: set[str] = set()
    todo = [reference]
    while todo:
        for found in _references(root if (at := todo.pop()) == "#" else resolve(at, root)):
            if found == reference:
                return True
            if found not in seen:
                seen.add(found)
                todo.append(found)
    return reference == "#"


def _references(value: Any) -> set[str]:
    found: set[str] = set()
    todo = [value]
    while todo:
        at = todo.pop()
        if isinstance(at, dict):
            if isinstance(at.get("$ref"), str):
                found.add(at["$ref"])
            todo += at.values()
        elif isinstance(at, list):
            todo += at
    return found


def _present(schema: dict[str, Any], keys: Iterable[str]) -> list[str]:
    return [key for key in keys if key in schema]


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _names(value: object) -> list[str]:
    return value if isinstance(value, list) else []


def _type_of(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "integer" if isinstance(value, int) else "number"
    names: dict[type, str] = {str: "string", dict: "object", list: "array"}
    return names.get(type(value), "null")
