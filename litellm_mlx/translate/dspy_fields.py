"""What one field of a DSPy prompt must be: as JSON, and as the bare text of a chat field.

Owns the meaning of DSPy's notes, of the types in its list, and of its "Constraints:" lines.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from litellm_mlx.grammar.json_schema import ANNOTATIONS, map_subschemas
from litellm_mlx.translate.dspy_limits import limited
from litellm_mlx.translate.dspy_prompt import Adapter, Field, UnknownPrompt
from litellm_mlx.translate.dspy_types import (
    annotation_text,
    arguments,
    literal_members,
    schema_of,
)

BOOL_NOTE = "must be True or False"
NUMBER_NOTES = {
    "must be a single int value": "integer",
    "must be a single float value": "number",
}
ENUM_NOTE = "must be one of: "
LITERAL_NOTE = "must exactly match (no extra characters) one of: "
SCHEMA_NOTE = "must adhere to the JSON schema: "
SEPARATOR = "; "

DEFS = "#/$defs/"

_STRING = {"type": "string"}
_NULL = {"type": "null"}


@dataclass(frozen=True, slots=True)
class FieldType:
    """What a field must be.

    Attributes:
        schema: of its JSON form; references point into its own `$defs`.
        words: its bare texts, where it is one of a few.
        is_text: bare, it is any text.
    """

    schema: dict[str, Any]
    words: tuple[str, ...] | None = None
    is_text: bool = False


def field_type(field: Field, adapter: Adapter) -> FieldType:
    """Say what a field must be, by its note (under BAMLAdapter its type) and its constraints.

    Raises:
        UnknownPrompt: a note that DSPy does not print, or that could mean two things.
    """
    meant = _annotated(field.annotation) if adapter == "baml" else _meant(field)
    return FieldType(limited(meant.schema, field.constraints), meant.words, meant.is_text)


def _annotated(annotation: str) -> FieldType:
    if annotation.startswith("Literal["):
        return FieldType({"enum": list(literal_members(annotation))})
    text = annotation_text(annotation)
    return FieldType({} if text is None else schema_of(text))


def _meant(field: Field) -> FieldType:
    note = field.note
    if not note:
        return FieldType(dict(_STRING), is_text=True)
    if note == BOOL_NOTE:
        return FieldType({"type": "boolean"}, words=("True", "False"))
    if note in NUMBER_NOTES:
        return FieldType({"type": NUMBER_NOTES[note]})
    if note.startswith(LITERAL_NOTE):
        return _literal(field.annotation, note.removeprefix(LITERAL_NOTE))
    if note.startswith(ENUM_NOTE):
        return _enum(note.removeprefix(ENUM_NOTE).split(SEPARATOR))
    if note.startswith(SCHEMA_NOTE):
        return _adhering(field.annotation, note.removeprefix(SCHEMA_NOTE))
    raise UnknownPrompt(f"the note {note!r:.60}")


def _literal(annotation: str, joined: str) -> FieldType:
    """The note only joins the members; the list has them as Python writes them."""
    members = literal_members(annotation)
    words = tuple(str(member) for member in members)
    if SEPARATOR.join(words) != joined:
        raise UnknownPrompt("list and note have different literals")
    return FieldType({"enum": list(members)}, words)


def _enum(words: list[str]) -> FieldType:
    """DSPy prints the values alone, so that 1 and "1" look the same."""
    values: list[Any] = []
    for word in words:
        values += [word, *_number_of(word)]
    return FieldType({"enum": values}, tuple(words))


def _number_of(word: str) -> list[int | float]:
    try:
        number = json.loads(word)
    except ValueError:
        return []
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return [number] if is_number and str(number) == word else []


def _adhering(annotation: str, source: str) -> FieldType:
    try:
        schema = json.loads(source)
    except (ValueError, RecursionError):
        raise UnknownPrompt("a note whose schema is not JSON") from None
    if not isinstance(schema, dict):
        raise UnknownPrompt("a schema that is no object")
    if annotation_text(annotation) == "Decimal":
        return FieldType({"type": "number"})  # Pydantic also prints "string" without a pattern
    tidy = tidied(schema)
    options = tidy.get("anyOf", [])
    # DSPy hands an optional string on as it stands, quotes and all
    is_text = _STRING in options and _NULL in options and _may_take_text(annotation)
    return FieldType(tidy, is_text=is_text)


def _may_take_text(annotation: str) -> bool:
    """Whether `str` and `None` are themselves options of a union, which is what DSPy asks."""
    text = annotation_text(annotation)
    return text is None or {"str", "NoneType"} <= set(arguments(text))


def tidied(schema: dict[str, Any]) -> dict[str, Any]:
    """Copy a schema that DSPy printed, sorted by name, into the shape in which it would send it.

    Models get the order of their properties back, as far as `required` tells it, and are closed:
    Pydantic drops what is more, and an open one lets a small model ramble. A set may be written
    with an item twice: Pydantic takes it, and no grammar can forbid it.
    """
    dropped = ANNOTATIONS | {"uniqueItems"}
    kept = {key: value for key, value in schema.items() if key not in dropped}
    kept = map_subschemas(kept, lambda sub: sub if isinstance(sub, bool) else tidied(sub))
    properties = kept.get("properties")
    if isinstance(properties, dict) and properties:
        names = [name for name in kept.get("required", []) if name in properties]
        kept["properties"] = {name: properties[name] for name in [*names, *properties]}
        kept.setdefault("additionalProperties", False)
    return kept


def with_moved_references(schema: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Copy a schema without its `$defs`; its references name them with a prefix.

    Raises:
        UnknownPrompt: a reference to somewhere else.
    """
    kept = {key: value for key, value in schema.items() if key != "$defs"}
    kept = map_subschemas(
        kept, lambda sub: sub if isinstance(sub, bool) else with_moved_references(sub, prefix)
    )
    if "$ref" in kept:
        kept["$ref"] = f"{DEFS}{prefix}{definition_name(kept['$ref'])}"
    return kept


def definition_name(reference: object) -> str:
    """The name in `$defs` that a reference has.

    Raises:
        UnknownPrompt: it points to somewhere else.
    """
    if not isinstance(reference, str) or not reference.startswith(DEFS):
        raise UnknownPrompt(f"a reference to {reference!r:.60}")
    return reference.removeprefix(DEFS)


def moved_definitions(schema: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The `$defs` of a schema under prefixed names."""
    return {
        f"{prefix}{name}": with_moved_references(definition, prefix)
        for name, definition in schema.get("$defs", {}).items()
    }
