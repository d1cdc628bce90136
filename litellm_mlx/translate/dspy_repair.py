"""The JSON schema that JSONAdapter sends, repaired from the one that it prints in its prompt.

DSPy closes every object before it sends a schema, so that a dict can only be `{}`; it leaves out
`OutputField(ge=0)`; and it keeps a field that a native feature took out of the prompt. Where it
cannot send a schema at all, the whole of it comes from the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from litellm_mlx.translate.dspy_fields import (
    FieldType,
    definition_name,
    moved_definitions,
    with_moved_references,
)
from litellm_mlx.translate.dspy_limits import limited
from litellm_mlx.translate.dspy_prompt import Field, UnknownPrompt

# What makes an object a dict with values of one kind.
_DICT_KEYWORDS = ("additionalProperties", "propertyNames", "patternProperties", "minProperties")
_CLOSED = {"properties": {}, "required": [], "additionalProperties": False}
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")

Fields = Mapping[Field, FieldType]


def printed_schema(fields: Fields) -> dict[str, Any]:
    """The schema of the object that the prompt describes."""
    properties: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for number, (item, kind) in enumerate(fields.items(), 1):
        properties[item.name] = with_moved_references(kind.schema, _prefix(number))
        definitions |= moved_definitions(kind.schema, _prefix(number))
    return _object(properties, definitions)


def _prefix(number: int) -> str:
    """Keeps the definitions of a field apart from those of others, and from Pydantic's own.

    A number, since a name need not be ASCII, as a reference has to be.
    """
    return f"{number}."


def _object(properties: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    return {
        **({"$defs": definitions} if definitions else {}),
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def repaired_schema(sent: Mapping[str, Any], fields: Fields) -> tuple[dict[str, Any], list[str]]:
    """Give the schema that was sent as the prompt says it, and what was changed.

    Raises:
        UnknownPrompt: it is not of the shape that DSPy sends.
    """
    given = sent.get("properties")
    if sent.get("type") != "object" or not isinstance(given, dict):
        raise UnknownPrompt("a schema that DSPy does not send")
    definitions = dict(sent.get("$defs", {}))
    properties: dict[str, Any] = {}
    notes = []
    for number, (item, kind) in enumerate(fields.items(), 1):
        opening = _Opening(_prefix(number), kind.schema, definitions)
        if item.name in given:
            properties[item.name], note = _repaired_field(given[item.name], item, opening)
        else:
            properties[item.name], note = opening.copied(kind.schema), "added"
        if note:
            notes.append(f"field `{item.name}` {note}")
    notes += [f"field `{name}` removed" for name in given if name not in properties]
    return _object(properties, definitions), notes


def _repaired_field(sent: Any, item: Field, opening: _Opening) -> tuple[Any, str]:
    opened = opening.opened(sent, opening.printed)
    bounded = limited(opened, item.constraints) if isinstance(opened, dict) else opened
    notes = ["dict opened"] if opening.has_opened else []
    notes += ["limited"] if bounded != opened else []
    return bounded, ", ".join(notes)


@dataclass(slots=True)
class _Opening:
    """A walk over what was sent of a field and what was printed of it, side by side.

    Attributes:
        prefix: of the names under which definitions of the printed schema are added.
        printed: the field's schema in the prompt, whose references point into its own `$defs`.
        definitions: those of the schema that was sent; those that hold dicts are replaced here.
    """

    prefix: str
    printed: dict[str, Any]
    definitions: dict[str, Any]
    has_opened: bool = False
    seen: set[str] = field(default_factory=set)

    def opened(self, sent: Any, printed: Any) -> Any:
        """Copy what was sent with each closed dict in it as open as it was printed."""
        if not isinstance(sent, dict) or not isinstance(printed, dict):
            return sent
        printed = self._resolved(printed)
        if "$ref" in sent:
            self._open_definition(definition_name(sent["$ref"]), printed)
            return sent
        if _is_closed(sent) and _is_dict(printed):
            self.has_opened = True
            kept = {key: value for key, value in sent.items() if key not in _CLOSED}
            said = {key: printed[key] for key in _DICT_KEYWORDS if key in printed}
            return {**kept, **self.copied(said)}
        return {key: self._opened_value(key, value, printed) for key, value in sent.items()}

    def copied(self, printed: dict[str, Any]) -> dict[str, Any]:
        """Copy a printed schema; what it refers to is copied too."""
        copy = with_moved_references(printed, self.prefix)
        if copy != printed:
            self.definitions.update(moved_definitions(self.printed, self.prefix))
        return copy

    def _resolved(self, printed: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in printed:
            return printed
        definition = self.printed.get("$defs", {}).get(definition_name(printed["$ref"]))
        return definition if isinstance(definition, dict) else {}

    def _open_definition(self, name: str, printed: dict[str, Any]) -> None:
        if name in self.seen or name not in self.definitions:
            return
        self.seen.add(name)
        self.definitions[name] = self.opened(self.definitions[name], printed)

    def _opened_value(self, key: str, sent: Any, printed: dict[str, Any]) -> Any:
        said = printed.get(key)
        if key == "properties" and isinstance(sent, dict) and isinstance(said, dict):
            return {name: self.opened(sub, said.get(name)) for name, sub in sent.items()}
        if key in ("items", "additionalProperties"):
            return self.opened(sent, said)
        if key in _LISTS and isinstance(sent, list) and isinstance(said, list):
            if len(sent) == len(said):
                return [self.opened(*pair) for pair in zip(sent, said, strict=True)]
        return sent


def _is_closed(sent: dict[str, Any]) -> bool:
    return sent.get("type") == "object" and all(sent.get(key) == _CLOSED[key] for key in _CLOSED)


def _is_dict(printed: dict[str, Any]) -> bool:
    """Whether the printed schema has values under any key; a model without fields has none."""
    is_open = printed.get("additionalProperties", "properties" not in printed) is not False
    return printed.get("type") == "object" and not printed.get("properties") and is_open
