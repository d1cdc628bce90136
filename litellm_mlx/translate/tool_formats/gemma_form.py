"""Calls in Gemma's notation: bare keys, and strings between marks of their own.

A nested value that the notation cannot be constrained in is JSON, which the reader takes too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from litellm_mlx.grammar.structure import FreeText, Part, Repeat, Text, json_part
from litellm_mlx.translate.tool_formats.form import (
    ArgumentsReader,
    Form,
    Schema,
    Tool,
    joined,
    one_of,
    seq,
)
from litellm_mlx.translate.tool_formats.values import (
    arguments_of,
    choices_of,
    core_of,
    is_exact,
    kind_of,
)

_SCALARS = ("integer", "number", "boolean", "null")
_DECODER = json.JSONDecoder()
MAX_DEPTH = 6  # of containers written natively; what lies deeper is JSON


class _Unfinished(Exception):
    """The text ends inside a value."""


@dataclass(frozen=True, kw_only=True)
class GemmaForm(Form):
    """Arguments as `{key:value,...}`; `quote` stands on both sides of a string."""

    quote: str

    def arguments_part(self, tool: Tool) -> Part:
        """The grammar of a call's arguments."""
        return self._object(tool, 0)

    def arguments_reader(self, tool: Tool) -> ArgumentsReader:
        """Give a new reader of one call's arguments."""
        return GemmaReader(self.quote)

    def arguments_text(self, tool: Tool, arguments: Mapping[str, Any]) -> str:
        """The arguments as this form writes them."""
        return self._written(arguments)

    def _object(self, tool: Tool, depth: int) -> Part:
        items = [
            (seq(Text(f"{a.name}:"), self._value(a.schema, depth)), a.is_required)
            for a in arguments_of(tool)
        ]
        return seq(Text("{"), joined(items, ","), Text("}"))

    def _value(self, schema: Schema, depth: int) -> Part:
        core, choices = core_of(schema), choices_of(schema)
        if choices is not None and not any(self.quote in choice for choice in choices):
            return self._quoted(one_of(map(Text, choices)))
        if choices is None and kind_of(schema) != "json":
            string = self._quoted(FreeText((self.quote,)))
            return string if kind_of(schema) == "raw" else one_of((string, Text("null")))
        if core.get("type") == "object" and core.get("properties") and depth < MAX_DEPTH:
            tool = Tool("", "", schema)
            if is_exact(tool) and "$ref" not in core:
                return self._object(tool, depth + 1)
        if core.get("type") == "array" and depth < MAX_DEPTH:
            if core.keys() <= {"type", "items", "minItems", "maxItems"} and core.get("items"):
                return self._array(core, depth + 1)
        return json_part(schema)

    def _array(self, core: Schema, depth: int) -> Part:
        at_least, at_most = core.get("minItems", 0), core.get("maxItems")
        item = self._value(core["items"], depth)
        if at_most == 0:
            return Text("[]")
        more = Repeat(
            seq(Text(","), item), max(at_least - 1, 0), None if at_most is None else at_most - 1
        )
        full = seq(Text("["), item, more, Text("]"))
        return full if at_least else one_of((full, Text("[]")))

    def _quoted(self, part: Part) -> Part:
        return seq(*self.parts(self.quote), part, *self.parts(self.quote))

    def _written(self, value: Any) -> str:
        if isinstance(value, str) and self.quote not in value:
            return f"{self.quote}{value}{self.quote}"
        if isinstance(value, Mapping):
            return "{" + ",".join(f"{k}:{self._written(v)}" for k, v in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ",".join(map(self._written, value)) + "]"
        return json.dumps(value, ensure_ascii=False)


class GemmaReader:
    """Reads the arguments of one call when they are complete."""

    def __init__(self, quote: str) -> None:
        """Start before the opening brace."""
        self._quote = quote

    def read(self, text: str) -> tuple[int, str, bool]:
        """Take all or nothing; see `ArgumentsReader`."""
        try:
            value, end = self._value(text, 0)
        except _Unfinished:
            return 0, "", False
        return end, json.dumps(value, ensure_ascii=False), True

    def _value(self, text: str, at: int) -> tuple[Any, int]:
        if text.startswith(self._quote, at):
            start = at + len(self._quote)
            end = text.find(self._quote, start)
            if end < 0:
                raise _Unfinished
            return text[start:end], end + len(self._quote)
        if text.startswith("{", at):
            return self._object(text, at + 1)
        if text.startswith("[", at):
            return self._array(text, at + 1)
        return self._json(text, at)

    def _object(self, text: str, at: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        while not text.startswith("}", at):
            at = _skip(text, at, ", ")
            if text.startswith('"', at):
                key, at = self._json(text, at)
            else:
                end = text.find(":", at)
                if end < 0:
                    raise _Unfinished
                key, at = text[at:end], end
            at = _skip(text, at, ": ")
            found[key], at = self._value(text, at)
        return found, at + 1

    def _array(self, text: str, at: int) -> tuple[list[Any], int]:
        found: list[Any] = []
        while not text.startswith("]", at):
            at = _skip(text, at, ", ")
            value, at = self._value(text, at)
            found.append(value)
        return found, at + 1

    def _json(self, text: str, at: int) -> tuple[Any, int]:
        """A JSON string or scalar, which must have ended for sure."""
        try:
            value, end = _DECODER.raw_decode(text, at)
        except ValueError:
            raise _Unfinished from None
        if end == len(text):
            raise _Unfinished
        return value, end


def _skip(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at
