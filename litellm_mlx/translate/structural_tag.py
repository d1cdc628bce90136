"""Structural tags, in the two shapes that vLLM's users write, as parts of a text.

The older shape names `structures` and `triggers`; the newer one nests a `format`. Validated by
Pydantic; what the grammar cannot express is refused by its type's name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from litellm_mlx.errors import UnsupportedParameterError
from litellm_mlx.grammar.structure import (
    FreeText,
    OneOf,
    Part,
    Pattern,
    Repeat,
    Seq,
    Text,
    json_part,
)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _ConstString(_Model):
    type: Literal["const_string"]
    value: str = Field(min_length=1)

    def part(self) -> Part:
        return Text(self.value)


class _JsonSchema(_Model):
    type: Literal["json_schema"]
    json_schema: dict[str, Any] | bool

    def part(self) -> Part:
        return json_part(self.json_schema)


class _AnyText(_Model):
    type: Literal["any_text"]
    excludes: list[Annotated[str, Field(min_length=1)]] = []

    def part(self) -> Part:
        return FreeText(tuple(self.excludes))


class _Regex(_Model):
    type: Literal["regex"]
    pattern: str = Field(min_length=1)

    def part(self) -> Part:
        return Pattern(self.pattern)


class _Sequence(_Model):
    type: Literal["sequence"]
    elements: list[_Format] = Field(min_length=1)

    def part(self) -> Part:
        return Seq(tuple(element.part() for element in self.elements))


class _Or(_Model):
    type: Literal["or"]
    elements: list[_Format] = Field(min_length=1)

    def part(self) -> Part:
        return OneOf(tuple(element.part() for element in self.elements))


class _Tag(_Model):
    type: Literal["tag"] = "tag"
    begin: str = Field(min_length=1)
    content: _Format
    end: str

    def part(self) -> Part:
        content = self.content
        if isinstance(content, _AnyText) and self.end and not content.excludes:
            inner: Part = FreeText((self.end,))
        else:
            inner = content.part()
        return _sequence(Text(self.begin), inner, Text(self.end) if self.end else None)


class _TriggeredTags(_Model):
    type: Literal["triggered_tags"]
    triggers: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1)
    tags: list[_Tag] = Field(min_length=1)
    at_least_one: bool = False
    stop_after_first: bool = False

    def part(self) -> Part:
        tags = OneOf(tuple(tag.part() for tag in self.tags))
        return _triggered(
            tags, self.triggers, at_least=int(self.at_least_one), only_one=self.stop_after_first
        )


class _SeparatedTags(_Model):
    type: Literal["tags_with_separator"]
    tags: list[_Tag] = Field(min_length=1)
    separator: str = ""
    at_least_one: bool = False
    stop_after_first: bool = False

    def part(self) -> Part:
        tag = OneOf(tuple(tag.part() for tag in self.tags))
        following = _sequence(Text(self.separator) if self.separator else None, tag)
        tags: Part = tag if self.stop_after_first else Seq((tag, Repeat(following)))
        return tags if self.at_least_one else Repeat(tags, 0, 1)


_Format = Annotated[
    _ConstString
    | _JsonSchema
    | _AnyText
    | _Regex
    | _Sequence
    | _Or
    | _Tag
    | _TriggeredTags
    | _SeparatedTags,
    Field(discriminator="type"),
]


class _OlderTag(_Model):
    begin: str = Field(min_length=1)
    json_schema: dict[str, Any] | bool = Field(alias="schema")
    end: str


class _Older(_Model):
    type: Literal["structural_tag"] = "structural_tag"
    structures: list[_OlderTag] = Field(min_length=1)
    triggers: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1)

    def part(self) -> Part:
        tags = (
            _sequence(Text(s.begin), json_part(s.json_schema), Text(s.end) if s.end else None)
            for s in self.structures
        )
        return _triggered(OneOf(tuple(tags)), self.triggers, at_least=0, only_one=False)


class _Newer(_Model):
    type: Literal["structural_tag"] = "structural_tag"
    format: _Format

    def part(self) -> Part:
        return self.format.part()


def structural_tag_part(value: Mapping[str, Any] | str) -> Part:
    """Read a structural tag, as an object or as its JSON text.

    Raises:
        UnsupportedParameterError: it has neither shape, or a type that is not known here.
        ConstraintError: a schema in it is none.
    """
    try:
        given = json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise UnsupportedParameterError(f"structural_tag is not JSON: {error}") from None
    try:
        shape = _Newer if isinstance(given, Mapping) and "format" in given else _Older
        return shape.model_validate(given).part()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise UnsupportedParameterError(f"structural_tag: {where}: {first['msg']}") from None


def _triggered(tags: Part, triggers: list[str], *, at_least: int, only_one: bool) -> Part:
    """Free text in which a trigger can only begin one of the tags."""
    text = FreeText(tuple(triggers))
    tagged = Seq((text, tags))
    if only_one:
        return tagged if at_least else OneOf((tagged, text))
    return Seq((Repeat(tagged, at_least), text))


def _sequence(*parts: Part | None) -> Part:
    return Seq(tuple(part for part in parts if part is not None))
