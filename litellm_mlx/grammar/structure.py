"""A text put together from parts, as one `Constraint`: tool calls, chat fields, structural tags.

Owns the parts and their canonical JSON. Compiling them to one grammar, so that a token may span
two parts, is `structure_compiler`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.constraint import check_size, json_schema_constraint
from litellm_mlx.types import Backend, Constraint


@dataclass(frozen=True, slots=True)
class Text:
    """Exactly this text."""

    text: str


@dataclass(frozen=True, slots=True)
class Marker:
    """The added token of exactly this text where the vocabulary has one, else the text."""

    text: str


@dataclass(frozen=True, slots=True)
class JsonPart:
    """JSON that a schema accepts; `source` is the schema's canonical text, see `json_part`."""

    source: str


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text that a regex matches as a whole."""

    regex: str


@dataclass(frozen=True, slots=True)
class Grammar:
    """A text of a Lark grammar, with rules of its own."""

    lark: str


@dataclass(frozen=True, slots=True)
class FreeText:
    """Any text that contains none of `excludes`; the empty text too.

    Where `begins_not` is given, nor does it begin with that.
    """

    excludes: tuple[str, ...] = ()
    begins_not: str = ""


@dataclass(frozen=True, slots=True)
class Seq:
    """One part after another."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class OneOf:
    """Exactly one of some parts; where two fit, either."""

    options: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """A part again and again; `at_most` of `None` is without end."""

    part: Part
    at_least: int = 0
    at_most: int | None = None


Part = Text | Marker | JsonPart | Pattern | Grammar | FreeText | Seq | OneOf | Repeat


def json_part(schema: Mapping[str, Any] | bool) -> JsonPart:
    """Give the part that asks for JSON by a schema.

    Raises:
        ConstraintError: see `json_schema_constraint`.
    """
    return JsonPart(json_schema_constraint(schema).source)


def structure_constraint(root: Part, backend: Backend = "llguidance") -> Constraint:
    """Ask for a text of these parts.

    Raises:
        ConstraintError: too large, or the backend has no grammars.
    """
    if backend != "llguidance":
        raise ConstraintError(f"{backend} has no grammars; choose the backend llguidance")
    source = json.dumps(_to_json(root), ensure_ascii=False, separators=(",", ":"))
    check_size(source, "structure")
    return Constraint("structure", source, backend)


def structure_of(constraint: Constraint) -> Part:
    """Give back the parts that `structure_constraint` was given."""
    return _from_json(json.loads(constraint.source))


def _to_json(part: Part) -> list[Any]:
    match part:
        case Text(text) | Marker(text):
            return [type(part).__name__, text]
        case JsonPart(source):
            return ["JsonPart", source]
        case Pattern(regex):
            return ["Pattern", regex]
        case Grammar(lark):
            return ["Grammar", lark]
        case FreeText(excludes, begins_not):
            return ["FreeText", list(excludes), begins_not]
        case Seq(parts):
            return ["Seq", [_to_json(item) for item in parts]]
        case OneOf(options):
            return ["OneOf", [_to_json(item) for item in options]]
        case Repeat(inner, at_least, at_most):
            return ["Repeat", _to_json(inner), at_least, at_most]


_LEAVES: dict[str, Callable[[str], Part]] = {
    "Text": Text,
    "Marker": Marker,
    "JsonPart": JsonPart,
    "Pattern": Pattern,
    "Grammar": Grammar,
}


def _from_json(value: list[Any]) -> Part:
    name, first, *rest = value
    if name in _LEAVES:
        return _LEAVES[name](first)
    if name == "FreeText":
        return FreeText(tuple(first), *rest)
    if name == "Repeat":
        return Repeat(_from_json(first), *rest)
    items = tuple(_from_json(item) for item in first)
    return Seq(items) if name == "Seq" else OneOf(items)
