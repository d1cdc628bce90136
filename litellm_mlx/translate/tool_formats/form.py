"""What all forms of tool calls share: names between fixed texts, around arguments.

A form is written once, as the texts around a call; the grammar and the reader both come from
them. `NAME` stands for the tool's name there and `INDEX` for the call's number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from litellm_mlx.grammar.structure import Marker, OneOf, Part, Pattern, Repeat, Seq, Text

Schema = Mapping[str, Any]
INDEX = "[0-9]{1,3}"


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call.

    Attributes:
        parameters: the JSON schema that its arguments are written by.
        own: the schema that the caller sent, where that is another.
        lark: the grammar of its only argument, a custom tool's text.
    """

    name: str
    description: str
    parameters: Schema
    own: Schema | None = None
    lark: str | None = None

    @property
    def own_schema(self) -> Schema:
        """The schema that its arguments must satisfy in the caller's eyes."""
        return self.parameters if self.own is None else self.own


class ArgumentsReader(Protocol):
    """Reads the arguments of one call from text that arrives in pieces."""

    def read(self, text: str) -> tuple[int, str, bool]:
        """Take what is certain of the text that is left.

        Returns:
            How many characters were taken, the new text of the JSON object that the arguments
            are, and whether they are complete.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Form:
    """The texts around calls and their arguments.

    Attributes:
        head: of one call, up to its arguments; holds `NAME`.
        tail: of one call, after its arguments.
        opens: before the first call.
        between: between two calls.
        closes: after the last call.
        markers: the texts in these that are one token in the model's vocabulary.
        is_parallel: an answer may hold several calls.
        leads_answer: the calls can only stand at the start of an answer, since nothing else sets
            them apart from text.
        answer_head: what the model writes before an answer that is no call.
        thought: texts around a thought that may come first, for a model with channels.
        has_short_ids: the template takes ids of 9 letters and digits only.
    """

    head: str
    tail: str = ""
    opens: str = ""
    between: str = ""
    closes: str = ""
    markers: tuple[str, ...] = ()
    is_parallel: bool = True
    leads_answer: bool = False
    answer_head: str = ""
    thought: tuple[str, str] | None = None
    has_short_ids: bool = False

    @property
    def trigger(self) -> str:
        """The text that only a call begins with: the first marker, or all up to the name."""
        start = (self.opens + self.head).split("NAME")[0]
        first = next((m for m in self.markers if start.startswith(m)), None)
        return start if first is None or self.answer_head else first

    def arguments_part(self, tool: Tool) -> Part:
        """The grammar of a call's arguments."""
        raise NotImplementedError

    def arguments_reader(self, tool: Tool) -> ArgumentsReader:
        """Give a new reader of one call's arguments."""
        raise NotImplementedError

    def arguments_text(self, tool: Tool, arguments: Mapping[str, Any]) -> str:
        """The arguments as this form writes them, for examples and histories."""
        raise NotImplementedError

    def calls_part(self, tools: Sequence[Tool], *, at_most_one: bool) -> Part:
        """The grammar of one or more calls."""
        before, after = self.head.split("NAME")
        named = (
            seq(Text(tool.name), *self.parts(after), self.arguments_part(tool)) for tool in tools
        )
        call = seq(*self.parts(before), one_of(named), *self.parts(self.tail))
        further = Repeat(seq(*self.parts(self.between), call))
        only_one = at_most_one or not self.is_parallel
        calls = (call,) if only_one else (call, further)
        return seq(*self.parts(self.opens), *calls, *self.parts(self.closes))

    def parts(self, text: str) -> list[Part]:
        """A fixed text as parts: its markers apart, `INDEX` a number."""
        special = [*self.markers, "INDEX"]
        pattern = "|".join(re.escape(s) for s in sorted(special, key=len, reverse=True))
        return [self._part(piece) for piece in re.split(f"({pattern})", text) if piece]

    def _part(self, piece: str) -> Part:
        if piece == "INDEX":
            return Pattern(INDEX)
        return Marker(piece) if piece in self.markers else Text(piece)

    def call_text(self, tool: Tool, arguments: Mapping[str, Any], index: int = 0) -> str:
        """One call as this form writes it."""
        return self.text_around(tool, self.arguments_text(tool, arguments), index)

    def text_around(self, tool: Tool, arguments: str, index: int = 0) -> str:
        """One call around arguments that are text already."""
        head = self.head.replace("INDEX", str(index)).replace("NAME", tool.name)
        return head + arguments + self.tail


def seq(*parts: Part) -> Part:
    """Parts one after another, with texts that touch made one."""
    flat: list[Part] = []
    for part in parts:
        for piece in part.parts if isinstance(part, Seq) else (part,):
            last = flat[-1] if flat else None
            if isinstance(piece, Text) and isinstance(last, Text):
                flat[-1] = Text(last.text + piece.text)
            else:
                flat.append(piece)
    return flat[0] if len(flat) == 1 else Seq(tuple(flat))


def one_of(options: Iterable[Part]) -> Part:
    """One of some parts, or the only one."""
    given = tuple(options)
    return given[0] if len(given) == 1 else OneOf(given)


def joined(items: Sequence[tuple[Part, bool]], separator: str) -> Part:
    """Items in order with a separator between; each says whether it must be there."""

    def following(start: int) -> list[Part]:
        rest = ((seq(Text(separator), part), must) for part, must in items[start:])
        return [part if must else Repeat(part, 0, 1) for part, must in rest]

    ways: list[Part] = []
    for place, (part, must) in enumerate(items):
        ways.append(seq(part, *following(place + 1)))
        if must:
            return one_of(ways)
    return one_of([*ways, Text("")])
