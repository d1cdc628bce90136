"""Whether a rendered chat shows all that it was given, each thing in its place.

A chat is rendered a second time with marks around each text, name and argument; where the marks
come says what the template shows and in which order. So a name that happens to stand in the list
of tools is not taken for a past call. What a template itself makes of the text between two marks
(quotes, trims, escapes) is looked through.

Texts come in groups: a message's content is one, each call with its arguments is one. Groups must
come one after another; within a group a template has its own order.
"""

from __future__ import annotations

import html
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any, Literal

Message = dict[str, Any]
Part = Literal["text", "call", "tool"]

# Private-use characters. A mark is one of the first two, its number in digits, and the third.
_OPEN, _CLOSE, _END, _ZERO = "\uf100", "\uf101", "\uf102", 0xF110
_DIGITS = "".join(chr(_ZERO + digit) for digit in range(10))
_TO_DIGITS = str.maketrans("0123456789", _DIGITS)
_MARK = re.compile(f"([{_OPEN}{_CLOSE}])([{_DIGITS}]+){_END}")
_ANY_MARK = re.compile(f"[{_OPEN}{_CLOSE}{_END}{_DIGITS}]")
# What looks like a template's markup or switch.
_SIGN = re.compile(r"</?[\w:.-]+>|<\|[^|<>]*\|>|\[/?[A-Z_]+\]|/[a-z_]+")
_ESCAPED_MARK = re.compile(r"\\+u(f1[01][0-9a-f])", re.IGNORECASE)


class LostError(Exception):
    """A template does not show something: a text, a past call, or a tool that may be called."""

    def __init__(self, what: str, part: Part = "text") -> None:
        super().__init__(f"the model's chat template cannot show {what}")
        self.part = part


@dataclass(frozen=True, slots=True)
class _Item:
    """One text that must be shown; `value` is how a number behind a key may be written."""

    what: str
    text: str
    part: Part = "text"
    kind: Literal["text", "key", "key of text"] = "text"
    value: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnMarkup:
    """What a template reads out of texts, and may leave out by its own design.

    Attributes:
        signs: tags and switches (`<answer>`, `/no_think`) that the template itself names.
        thought: the texts around a thought.
        may_drop_thoughts: the template knows thoughts, so that past ones are its own business.
    """

    signs: frozenset[str]
    thought: tuple[str, str]
    may_drop_thoughts: bool

    @classmethod
    def of(cls, template: str, thought: tuple[str, str], *, reads_thoughts: bool) -> OwnMarkup:
        """Read them from a template's text; `reads_thoughts` says that it has a field for them."""
        signs = _signs_of(template) | {*thought}
        return cls(signs, thought, reads_thoughts or thought[1] in template)

    def pieces(self, text: str, *, is_past_answer: bool) -> Iterator[tuple[str, bool]]:
        """The pieces of a text, and for each whether it must be shown."""
        pieces = re.split(f"({_SIGN.pattern})", text)
        ends = [i for i, piece in enumerate(pieces) if piece == self.thought[1]]
        drops = ends and is_past_answer and self.may_drop_thoughts
        start = ends[-1] + 1 if drops else 0
        yield "".join(pieces[:start]), False
        for piece in _joined_but(pieces[start:], self.signs):
            yield piece, piece not in self.signs and bool(piece.strip())


@cache
def _signs_of(template: str) -> frozenset[str]:
    """The tags and switches that a template's text names."""
    return frozenset(_SIGN.findall(template)) | frozenset(re.findall(r"[\'\"](/\w+)", template))


def _joined_but(pieces: Sequence[str], signs: frozenset[str]) -> Iterator[str]:
    """Pieces with neighbours joined, the signs alone."""
    for is_sign, group in groupby(pieces, key=lambda piece: piece in signs):
        run = list(group)
        yield from run if is_sign else ["".join(run)]


class Marks:
    """Marks of one chat, and the check of what a template makes of it."""

    def __init__(self, markup: OwnMarkup) -> None:
        self._markup = markup
        self._items: list[_Item] = []
        self._groups: list[list[int]] = []
        self._tools: list[int] = []
        self._properties: list[tuple[str, str]] = []

    def chat(self, chat: Sequence[Message], *, continues: bool) -> list[Message]:
        """The chat with marks; `continues` says that the last message is an answer's beginning."""
        last = len(chat) - 1 if continues else None
        return [self._message(m, place, is_open=place == last) for place, m in enumerate(chat)]

    def tools(self, tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The tools with marks around their names and descriptions."""
        return [self._tool(tool) for tool in tools]

    def check(self, marked: str, text: str) -> None:
        """Hold the law.

        Args:
            marked: the chat with marks, rendered.
            text: the chat itself, rendered.

        Raises:
            LostError: something is not shown, or not in its place.
        """
        marked = _ESCAPED_MARK.sub(lambda found: chr(int(found[1], 16)), marked)
        spans = _spans(marked)
        cursor = 0
        for group in self._groups:
            ends = [self._shown(n, marked, spans, cursor) for n in group]
            cursor = max(ends, default=cursor)
        if _ANY_MARK.sub("", marked) != _ANY_MARK.sub("", text):
            self._check_plainly(text)
        self._check_tools(marked, spans)

    def _message(self, message: Message, place: int, *, is_open: bool) -> Message:
        role, content = message["role"], message["content"]
        what = f"the text of message {place} ({role})"
        if role == "tool":
            what = f"the result of {message.get('name', 'a call')!r} in message {place}"
        found = dict(message)
        thought = message.get("reasoning_content")
        if is_open and thought:
            found["reasoning_content"] = self._marked_alone(thought, what)
        pieces = self._markup.pieces(content, is_past_answer=role == "assistant" and not is_open)
        found["content"] = "".join(
            self._marked_alone(piece, what) if must else piece for piece, must in pieces
        )
        if role == "tool" and not content.strip():
            found["content"] = self._marked_alone(content, what)  # whether it shows any result
        if calls := message.get("tool_calls"):
            found["tool_calls"] = [self._call(call, place) for call in calls]
        elif call_id := message.get("tool_call_id"):
            found["tool_call_id"] = self._named_id(call_id, message.get("name"), None)
        return found

    def _marked_alone(self, text: str, what: str) -> str:
        """A text that is a group of its own."""
        self._groups.append([])
        return self._mark(_Item(what, text))

    def _call(self, call: Mapping[str, Any], place: int) -> dict[str, Any]:
        function = dict(call["function"])
        name = str(function.get("name", ""))
        what = f"the call of {name!r} in message {place}"
        self._groups.append([])
        number = len(self._items)
        if name:
            function["name"] = self._mark(_Item(what, name, "call"))
        if "arguments" in function:
            function["arguments"] = self._arguments(function["arguments"], what)
        return {**call, "id": self._named_id(call["id"], name, number), "function": function}

    def _named_id(self, call_id: Any, name: Any, number: int | None) -> Any:
        """An id that carries the function's name has the name's mark too, where that is known."""
        match = re.fullmatch(r"functions\.(.+):(\d+)", str(call_id))
        if match is None or match[1] != name:
            return call_id
        if number is None:
            known = (n for n in range(len(self._items)) if self._items[n].text == name)
            number = next(known, None)
        return call_id if number is None else f"functions.{_wrap(name, number)}:{match[2]}"

    def _arguments(self, arguments: Any, what: str) -> Any:
        """Arguments with marks in them, so that JSON text can still be parsed by who wants to."""
        what = f"the arguments of {what}"
        if isinstance(arguments, str) and isinstance(parsed := _parsed(arguments), dict):
            return json.dumps(self._value(parsed, what, "key of text"), ensure_ascii=False)
        return self._value(arguments, what, "key")

    def _value(self, value: Any, what: str, key_kind: Literal["key", "key of text"]) -> Any:
        if isinstance(value, str):
            return self._mark(_Item(what, value, "call")) if value.strip() else value
        if isinstance(value, Mapping):
            return {
                self._key(key, item, what, key_kind): self._value(item, what, key_kind)
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self._value(item, what, key_kind) for item in value]
        return value

    def _key(self, key: Any, value: Any, what: str, kind: Literal["key", "key of text"]) -> Any:
        if not isinstance(key, str) or not key.strip():
            return key
        is_number = value is None or isinstance(value, (bool, int, float))
        written = (json.dumps(value), str(value)) if is_number else ()
        return self._mark(_Item(what, key, "call", kind, written))

    def _tool(self, tool: Mapping[str, Any]) -> dict[str, Any]:
        function = dict(tool["function"])
        what = f"the tool {function['name']!r}"
        for key in ("name", "description"):
            if function.get(key):
                function[key] = _wrap(function[key], len(self._items))
                self._tools.append(len(self._items))
                self._items.append(_Item(what, tool["function"][key]))
        parameters = function.get("parameters") or {}
        self._properties += [(what, name) for name in parameters.get("properties", {})]
        return {**tool, "function": function}

    def _mark(self, item: _Item) -> str:
        self._groups[-1].append(len(self._items))
        self._items.append(item)
        return _wrap(item.text, len(self._items) - 1)

    def _shown(
        self, number: int, marked: str, spans: Mapping[int, list[tuple[int, int]]], cursor: int
    ) -> int:
        """Where an item ends that is shown at or after the cursor."""
        item = self._items[number]
        for start, end in spans.get(number, ()):
            if start >= cursor and _is_same(_inside(marked, start, end), item):
                if item.kind != "text":
                    _check_key(marked, start, end, item)
                return end
        raise LostError(item.what, item.part)

    def _check_tools(self, marked: str, spans: Mapping[int, list[tuple[int, int]]]) -> None:
        for number in self._tools:
            item = self._items[number]
            if not any(_is_same(_inside(marked, *span), item) for span in spans.get(number, ())):
                raise LostError(item.what, "tool")
        for what, name in self._properties:
            if not any(written in marked for written in _written(name)):
                raise LostError(what, "tool")

    def _check_plainly(self, text: str) -> None:
        """Find the texts themselves, in order, where marks change what the template does."""
        cursor = 0
        for group in self._groups:
            ends = [_find(text, self._items[n], cursor) for n in group]
            cursor = max(ends, default=cursor)


def _wrap(text: str, number: int) -> str:
    """A text between marks; white space around it stays outside, where it may be trimmed."""
    digits = str(number).translate(_TO_DIGITS)
    core = text.strip()
    before, after = text.split(core, 1) if core else (text, "")
    return f"{before}{_OPEN}{digits}{_END}{core}{_CLOSE}{digits}{_END}{after}"


def _spans(marked: str) -> dict[int, list[tuple[int, int]]]:
    """Where the texts between marks stand, marks included, by number."""
    spans: dict[int, list[tuple[int, int]]] = defaultdict(list)
    opened: dict[int, int] = {}
    for mark in _MARK.finditer(marked):
        number = int("".join(str(ord(digit) - _ZERO) for digit in mark[2]))
        if mark[1] == _OPEN:
            opened[number] = mark.start()
        elif number in opened:
            spans[number].append((opened.pop(number), mark.end()))
    return spans


def _inside(marked: str, start: int, end: int) -> str:
    return _MARK.sub("", marked[start:end])


def _is_same(shown: str, item: _Item) -> bool:
    """Whether the shown text is the item's, as it is or as a template may quote it."""
    text = _ANY_MARK.sub("", item.text).strip()
    if shown == text:
        return True
    plain = html.unescape(shown)
    readings = {shown, plain, *_unquoted(shown), *_unquoted(plain)}
    words = _words(text)
    return text in readings or (
        bool(words) and any(_words(reading) == words for reading in readings)
    )


def _words(text: str) -> str:
    return re.sub(r"[\W_]+", "", text).casefold()


def _unquoted(shown: str) -> Iterator[str]:
    try:
        yield str(json.loads(f'"{shown}"', strict=False))
    except ValueError:
        return


def _check_key(marked: str, start: int, end: int, item: _Item) -> None:
    """Refuse what would teach a model to write its calls so: Python's notation, JSON in JSON."""
    is_python = marked[start - 1 : start] == "'" and marked[end : end + 2] == "':"
    is_quoted_twice = item.kind == "key of text" and marked[start - 2 : start] == '\\"'
    if is_python or is_quoted_twice:
        raise LostError(f"{item.what} as JSON", item.part)
    following = _MARK.search(marked, end)
    value = marked[end : following.start() if following else None]
    if item.value and not any(written in value for written in item.value):
        raise LostError(item.what, item.part)


def _written(text: str) -> tuple[str, ...]:
    """The ways in which templates write a text."""
    core = text.strip()
    quoted = json.dumps(core, ensure_ascii=False)[1:-1]
    return core, quoted, json.dumps(core)[1:-1], html.escape(core)


def _find(text: str, item: _Item, cursor: int) -> int:
    places = [(text.find(written, cursor), len(written)) for written in _written(item.text)]
    found = [start + length for start, length in places if start >= 0]
    if not found:
        raise LostError(item.what, item.part)
    return min(found)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
