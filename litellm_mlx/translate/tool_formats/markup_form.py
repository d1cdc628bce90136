"""Calls with one tag or keyword per argument: GLM, Qwen3-Coder, MiniMax, MiniCPM, LFM2 and more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
from litellm_mlx.translate.tool_formats.form import ArgumentsReader, Form, Tool, joined, one_of, seq
from litellm_mlx.translate.tool_formats.values import Argument, Kind, arguments_of

CDATA = ("<![CDATA[", "]]>")
_DECODER = json.JSONDecoder()
# What may still grow at the end of a buffer: a JSON number or literal.
_SCALAR = frozenset("-+.0123456789aeflnrstuE")


@dataclass(frozen=True, kw_only=True)
class MarkupForm(Form):
    """Arguments one by one.

    Attributes:
        value_head: before a value; holds `KEY`, and `STRING` where the text says whether the
            value stands as it is (`true`) or as JSON (`false`).
        value_tail: after a value.
        value_end: the text that no value as it is may hold; mostly the tag in `value_tail`.
        value_separator: between two arguments.
        has_raw_strings: strings are written as they are; else as JSON.
        has_cdata: strings with markup or line breaks stand in a CDATA block.
    """

    value_head: str
    value_tail: str
    value_end: str = ""
    value_separator: str = ""
    has_raw_strings: bool = True
    has_cdata: bool = False

    def arguments_part(self, tool: Tool) -> Part:
        """The grammar of a call's arguments."""
        items = [(self._argument_part(a), a.is_required) for a in arguments_of(tool)]
        if self.value_separator:
            return joined(items, self.value_separator)
        return Seq(tuple(part if must else Repeat(part, 0, 1) for part, must in items))

    def arguments_reader(self, tool: Tool) -> ArgumentsReader:
        """Give a new reader of one call's arguments."""
        kinds = {a.name: self.kind(a) for a in arguments_of(tool)}
        return MarkupReader(self, kinds)

    def arguments_text(self, tool: Tool, arguments: Mapping[str, Any]) -> str:
        """The arguments as this form writes them."""
        kinds = {a.name: self.kind(a) for a in arguments_of(tool)}
        return self.value_separator.join(
            self._head(name, kinds.get(name, "json"))
            + self._written(value, kinds.get(name, "json"))
            + self.value_tail
            for name, value in arguments.items()
        )

    def kind(self, argument: Argument) -> Kind:
        """How the argument's value is written by this form."""
        kind = argument.kind if self.has_raw_strings else "json"
        if argument.choices and any(self.value_end in choice for choice in argument.choices):
            return "json"
        return kind

    def _argument_part(self, argument: Argument) -> Part:
        kind = self.kind(argument)
        head = self.parts(self._head(argument.name, kind))
        tail = self.parts(self.value_tail)
        if kind == "json":
            return seq(*head, json_part(argument.schema), *tail)
        if argument.choices:
            return seq(*head, one_of(map(Text, argument.choices)), *tail)
        if self.has_cdata:
            plain = Pattern(r"[^<&\n]*")
            block = seq(Text(CDATA[0]), FreeText((CDATA[1],)), Text(CDATA[1]))
            return seq(*head, OneOf((plain, block)), *tail)
        return seq(*head, FreeText((self.value_end,)), *tail)

    def _head(self, name: str, kind: Kind) -> str:
        is_string = "false" if kind == "json" else "true"
        return self.value_head.replace("STRING", is_string).replace("KEY", name)

    def _written(self, value: Any, kind: Kind) -> str:
        if kind == "json" or not isinstance(value, str):
            return json.dumps(value, ensure_ascii=False)
        if self.has_cdata and not set(value).isdisjoint("<&\n"):
            return value.join(CDATA)
        return value


class MarkupReader:
    """Reads one argument after another and gives each as soon as it is complete."""

    def __init__(self, form: MarkupForm, kinds: Mapping[str, Kind]) -> None:
        """Start before the first argument."""
        self._form = form
        self._kinds = kinds
        self._num_read = 0

    def read(self, text: str) -> tuple[int, str, bool]:
        """Take all arguments that are complete; see `ArgumentsReader`."""
        taken, given = 0, ""
        while (found := self._argument(text[taken:])) is not None:
            length, name, value = found
            given += ("{" if self._num_read == 0 else ", ") + f"{json.dumps(name)}: {value}"
            self._num_read += 1
            taken += length
        if not self._is_over(text[taken:]):
            return taken, given, False
        return taken, given + ("}" if self._num_read else "{}"), True

    def _lead(self) -> str:
        separator = self._form.value_separator if self._num_read else ""
        return separator + self._form.value_head.split("KEY")[0]

    def _is_over(self, text: str) -> bool:
        """What stands here is the tail of the call and cannot become an argument."""
        tail, lead = self._form.tail, self._lead()
        if not lead:  # the argument's name comes first, so the tail must tell
            return text.startswith(tail[:1])
        return bool(text) and not lead.startswith(text[: len(lead)])

    def _argument(self, text: str) -> tuple[int, str, str] | None:
        """Length, name and JSON value of the argument here; `None` where it is not complete."""
        lead = self._lead()
        if not text.startswith(lead):
            return None
        for name, kind in self._kinds.items():
            head = lead + self._head(name, kind)
            if text.startswith(head):
                value = self._value(text[len(head) :], kind)
                return None if value is None else (len(head) + value[0], name, value[1])
        return None

    def _head(self, name: str, kind: Kind) -> str:
        head = self._form._head(name, kind)
        return head[len(self._form.value_head.split("KEY")[0]) :]

    def _value(self, text: str, kind: Kind) -> tuple[int, str] | None:
        tail = self._form.value_tail
        if kind == "json":
            end = _json_end(text)
            raw = None if end is None else text[:end]
        elif self._form.has_cdata and text.startswith(CDATA[0]):
            end = text.find(CDATA[1], len(CDATA[0]))
            raw, end = text[len(CDATA[0]) : end], None if end < 0 else end + len(CDATA[1])
        elif self._form.has_cdata and CDATA[0].startswith(text):
            return None
        else:
            end = text.find(tail)
            raw, end = text[:end], None if end < 0 else end
        if end is None or raw is None or not text.startswith(tail, end):
            return None
        is_json = kind == "json" or (kind == "raw_or_null" and raw == "null")
        return end + len(tail), raw if is_json else json.dumps(raw, ensure_ascii=False)


def _json_end(text: str) -> int | None:
    """Where the JSON value at the start of a text ends; `None` while it may go on."""
    try:
        _, end = _DECODER.raw_decode(text)
    except ValueError:
        return None
    if end == len(text) and text[-1] in _SCALAR:
        return None
    return end
