"""The schema of a call's arguments: a tool's own, said of one object and of known names.

Owns the two things that a tool's schema leaves to the caller's good sense. Arguments are an object,
whatever else the schema would take; and where it does not say whether there may be properties that
it does not name, there may not. What it names counts wherever it stands: also in the branches of
`anyOf`, `if` and the like, and behind references.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.disjoint import resolve
from litellm_mlx.grammar.tiers import contradicts_itself
from litellm_mlx.translate.tool_formats.form import Schema

NO_ARGUMENTS: Schema = {"type": "object", "properties": {}, "additionalProperties": False}

# Of a name that more branches describe differently, only the branches themselves say what it is.
MAX_UNITED = 8

# Keywords whose subschemas are about the same object. What a condition names is known, but what
# it says of a value need not hold.
_LISTS = ("allOf", "anyOf", "oneOf")
_SINGLE = ("then", "else")
_CONDITIONS = ("if",)
_NAMED = ("dependentSchemas", "dependencies")
_NAME_LISTS = ("dependentRequired", "dependencies")
# A schema of these alone has a value.
_PLAIN = frozenset("default description examples format title type".split())
# Properties without a name in the schema, or references that depend on who refers.
_OPENING = ("additionalProperties", "unevaluatedProperties", "patternProperties")
_DYNAMIC = ("$dynamicRef", "$recursiveRef")


def arguments_schema(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Give the schema that a call's arguments are held to, which only narrows the tool's own.

    There is one exception: beside `unevaluatedProperties` the names of all branches count as
    evaluated, so that the tool's own schema must be asked too.

    Raises:
        ConstraintError: the parameters describe no object.
    """
    schema = dict(parameters or NO_ARGUMENTS)
    kinds = schema.get("type", "object")
    if "object" not in ([kinds] if isinstance(kinds, str) else _list(kinds)):
        raise ConstraintError(f"parameters describe an object, not {kinds!r:.40}")
    schema["type"] = "object"
    if "$ref" in schema:  # older drafts would ignore all that stands beside it
        schema["allOf"] = [*schema.get("allOf", ()), {"$ref": schema.pop("$ref")}]
    return _closed(schema)


def without_contradictions(parameters: Schema) -> tuple[Schema, tuple[str, ...]]:
    """Leave out the optional properties that no value can satisfy, and name them.

    The meaning stays: no valid arguments have them. The engine leaves them out by itself where it
    writes the arguments as one object, and refuses them where each is written on its own.

    Args:
        parameters: as `arguments_schema` gives them.
    """
    properties = parameters.get("properties", {})
    if parameters.get("additionalProperties") is not False:
        return parameters, ()  # what is not named there may be anything
    named = {key: parameters[key] for key in ("$defs", "definitions") if key in parameters}
    optional = properties.keys() - set(parameters.get("required", ()))
    dead = tuple(
        name
        for name in properties
        if name in optional and _is_dead(json.dumps(_beside(properties[name], named)))
    )
    kept = {name: sub for name, sub in properties.items() if name not in dead}
    return ({**parameters, "properties": kept} if dead else parameters), dead


def _beside(schema: Any, named: Mapping[str, Any]) -> Any:
    if not isinstance(schema, dict) or _PLAIN.issuperset(schema):
        return schema is not False
    return {**named, **schema}


@lru_cache(maxsize=1024)
def _is_dead(source: str) -> bool:
    schema = json.loads(source)
    return schema is False or (schema is not True and contradicts_itself(schema))


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without further properties, where it says nothing of them and names some."""
    names = _Names(schema)
    names.read(schema, is_root=True)
    is_said = "additionalProperties" in schema or schema.get("unevaluatedProperties", False)
    if is_said or names.is_open or not (names.found or "properties" in schema):
        return schema
    own = schema.get("properties", {})
    others = {name: _united(subs) for name, subs in names.found.items() if name not in own}
    closed = {**schema, "properties": {**own, **others}, "additionalProperties": False}
    if required := list(dict.fromkeys(_required(schema, schema, frozenset()))):
        closed["required"] = required
    return closed


def _united(schemas: Sequence[Any]) -> Schema:
    """What a value is by one of these schemas."""
    distinct = [sub for place, sub in enumerate(schemas) if sub not in schemas[:place]]
    if not distinct or len(distinct) > MAX_UNITED or any(sub in (True, {}) for sub in distinct):
        return {}
    return distinct[0] if len(distinct) == 1 else {"anyOf": distinct}


@dataclass(slots=True)
class _Names:
    """The properties that a schema names for its own object, with what it says of each.

    Attributes:
        found: by name, the schemas that it may have; none where a name is only asked for.
        is_open: it also speaks of properties without naming them, or of what cannot be seen here.
    """

    root: Schema
    found: dict[str, list[Any]] = field(default_factory=dict)
    is_open: bool = False
    _seen: set[str] = field(default_factory=set)

    def read(self, schema: Any, *, is_root: bool = False, is_condition: bool = False) -> None:
        """Take what a subschema about the same object names."""
        if not isinstance(schema, Mapping):
            return
        self.is_open |= any(key in schema for key in _DYNAMIC)
        if not is_root:
            self.is_open |= any(schema.get(key, False) not in (False, {}) for key in _OPENING)
            self.is_open |= any(isinstance(schema.get(key), str) for key in ("$id", "id"))
        elif schema.get("patternProperties"):
            self.is_open = True
        for name, sub in _mapping(schema.get("properties")).items():
            known = self.found.setdefault(name, [])
            if sub is not False:
                known.append(True if is_condition else sub)
        for name in _asked_for(schema):
            self.found.setdefault(name, [])
        if isinstance(reference := schema.get("$ref"), str):
            self._follow(reference, is_condition=is_condition)
        for sub, is_conditional in _same_object(schema):
            self.read(sub, is_condition=is_condition or is_conditional)

    def _follow(self, reference: str, *, is_condition: bool) -> None:
        if reference == "#" or reference in self._seen:
            return
        self._seen.add(reference)
        target = resolve(reference, self.root)
        self.is_open |= target is None
        self.read(target, is_condition=is_condition)


def _same_object(schema: Mapping[str, Any]) -> Iterator[tuple[Any, bool]]:
    """The subschemas about the same object, and which of them are conditions."""
    for key in _LISTS:
        yield from ((sub, False) for sub in _list(schema.get(key)))
    for key in _SINGLE:
        yield schema.get(key), False
    for key in _CONDITIONS:
        yield schema.get(key), True
    for key in _NAMED:
        yield from ((sub, False) for sub in _mapping(schema.get(key)).values())


def _asked_for(schema: Mapping[str, Any]) -> Iterator[str]:
    """Names that a schema asks for without describing them."""
    yield from (name for name in _list(schema.get("required")) if isinstance(name, str))
    for key in _NAME_LISTS:
        for name, names in _mapping(schema.get(key)).items():
            yield name
            yield from (other for other in _list(names) if isinstance(other, str))


def _required(schema: Any, root: Schema, seen: frozenset[str]) -> list[str]:
    """The names that every object of a schema has, whichever branches it is of."""
    if not isinstance(schema, Mapping):
        return []
    names = [name for name in _list(schema.get("required")) if isinstance(name, str)]
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference != "#" and reference not in seen:
        names += _required(resolve(reference, root), root, seen | {reference})
    for sub in _list(schema.get("allOf")):
        names += _required(sub, root, seen)
    for key in ("anyOf", "oneOf"):
        branches = [_required(sub, root, seen) for sub in _list(schema.get(key))]
        names += [n for n in (branches[0] if branches else ()) if all(n in b for b in branches)]
    return names


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()
