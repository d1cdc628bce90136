"""Writes a structure as one grammar in llguidance's dialect of Lark.

Owns how each part is spelled there, and what ends a free text. Compiling the grammar is
`structure_compiler`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.structure import (
    FreeText,
    Grammar,
    JsonPart,
    Marker,
    OneOf,
    Part,
    Pattern,
    Repeat,
    Seq,
    Text,
)

_UNSAFE = re.compile(r"\\.|[/\n]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class StructureGrammar:
    """A structure in llguidance's words: its Lark text, and the added tokens that it names."""

    lark: str
    marker_token_ids: frozenset[int]


def structure_grammar(
    root: Part, markers: Mapping[str, int], schemas: Mapping[str, Any]
) -> StructureGrammar:
    """Write a structure as one Lark grammar.

    Args:
        root: what the text consists of.
        markers: the texts that are one token, and that token.
        schemas: for each `JsonPart.source` the schema as the engine is to see it.

    Raises:
        ConstraintError: a free text whose end nothing tells.
    """
    writer = _Writer(markers, schemas)
    start = writer.sequence([root])
    lark = "\n".join(["%llguidance {}", f"start: {start}", *writer.rules])
    return StructureGrammar(lark + "\n", frozenset(writer.used_markers))


@dataclass(slots=True)
class _Writer:
    """Writes parts as Lark expressions; `rules` are the lines beside them, each written once.

    A lexeme of llguidance is greedy and never takes back what it has read. So free text and the
    text after it are one lazy lexeme, which ends at the first place where it can.
    """

    markers: Mapping[str, int]
    schemas: Mapping[str, Any]
    rules: list[str] = field(default_factory=list)
    _names: dict[tuple[str, str], str] = field(default_factory=dict)
    used_markers: set[int] = field(default_factory=set)

    def sequence(self, parts: Sequence[Part]) -> str:
        """Write parts one after another."""
        written: list[str] = []
        left = list(parts)
        while left:
            first = left.pop(0)
            if isinstance(first, Seq):
                left[:0] = first.parts
            elif isinstance(first, FreeText):
                return " ".join([*written, self._free(first, left)])
            elif left and _may_end_free(first):
                return " ".join([*written, self._spread(first, left)])
            else:
                written.append(self._one(first))
        return " ".join(text for text in written if text)

    def _one(self, part: Part) -> str:
        match part:
            case Text(text):
                return _literal(text)
            case Marker(text):
                return self._marker(text)
            case JsonPart(source):
                return self._json(source)
            case Pattern(regex):
                return self._rule("PATTERN", f"/{_slashed(regex)}/")
            case Grammar(lark):
                return self._rule("lark", f"%lark {{\n{lark}\n}}")
            case OneOf(options):  # a rule of its own, since calls stand in a structure twice
                return self._rule("one", " | ".join(self.sequence([o]) for o in options))
            case Repeat(_, _, 0):
                return ""
            case Repeat(inner, at_least, at_most):
                return f"( {self.sequence([inner])} ){_times(at_least, at_most)}"
        raise AssertionError(f"{part} is written by `sequence`")

    def _free(self, free: FreeText, left: Sequence[Part]) -> str:
        """Free text, up to where what follows begins."""
        terminal = self._rule("FREE", _free_regex(free))
        if not left:
            return terminal
        first, rest = left[0], list(left[1:])
        match first:
            case Seq(parts):
                return self._free(free, [*parts, *rest])
            case FreeText() if first == free:
                return self._free(free, rest)
            case Text("") | Repeat(_, _, 0):
                return self._free(free, rest)
            case Text(text) if rest and self._is_token(rest[0]):  # a token ends any lexeme
                ended = self._rule("FREE", f"{terminal} {_literal(text)}")
                return f"{ended} {self.sequence(rest)}"
            case Text(text) | Marker(text) if not self._is_token(first):
                lazy = self._rule("lazy", f"{terminal} {_literal(text)}", "[lazy]")
                return f"{lazy} {self.sequence(rest)}".strip()
            case Marker(text):
                return f"{terminal} {self._marker(text)} {self.sequence(rest)}".strip()
            case OneOf(options):
                ways = [self._free(free, [option, *rest]) for option in options]
                return "( " + " | ".join(ways) + " )"
            case Repeat(inner, at_least, at_most):
                fewer = Repeat(
                    inner, max(at_least - 1, 0), None if at_most is None else at_most - 1
                )
                once = self._free(free, [inner, fewer, *rest])
                return once if at_least else f"( {once} | {self._free(free, rest)} )"
        raise ConstraintError(
            "nothing tells where the free text ends; let a fixed text follow it, or nothing"
        )

    def _spread(self, part: Part, left: Sequence[Part]) -> str:
        """A choice whose options may end in free text, with what follows written into each."""
        if isinstance(part, OneOf):
            ways = (self.sequence([option, *left]) for option in part.options)
            return "( " + " | ".join(ways) + " )"
        raise ConstraintError("a repeated part ends in free text; let a fixed text end it")

    def _is_token(self, part: Part) -> bool:
        return isinstance(part, Marker) and part.text in self.markers

    def _marker(self, text: str) -> str:
        token_id = self.markers.get(text)
        if token_id is None:
            return _literal(text)
        self.used_markers.add(token_id)
        return f"<[{token_id}]>"

    def _json(self, source: str) -> str:
        return self._rule("json", f"%json {json.dumps(self.schemas[source])}")

    def _rule(self, kind: str, body: str, attribute: str = "") -> str:
        """Name of the rule with this body; terminals have names in capitals."""
        if (kind, body) not in self._names:
            name = f"{kind}_{len(self._names)}"
            self._names[kind, body] = name
            self.rules.append(f"{name}{attribute}: {body}")
        return self._names[kind, body]


def _literal(text: str) -> str:
    # Surrogate pairs, which json.dumps writes otherwise, are not joined by the Lark reader.
    return json.dumps(text, ensure_ascii=False) if text else ""


def _times(at_least: int, at_most: int | None) -> str:
    if at_most is None:
        return {0: "*", 1: "+"}.get(at_least, f"{{{at_least},}}")
    return f"{{{at_least},{at_most}}}"


def _free_regex(free: FreeText) -> str:
    regex = "/(?s:.*)/"
    if free.begins_not:
        regex += f" & ~/{_escaped(free.begins_not)}(?s:.*)/"
    if free.excludes:
        excluded = "|".join(_escaped(text) for text in free.excludes)
        regex += f" & ~/(?s:.*)({excluded})(?s:.*)/"
    return regex


def _escaped(text: str) -> str:
    """A regex that matches just this text, safe between slashes."""
    return "".join(
        char if char.isalnum() or ord(char) > 127 else f"\\x{{{ord(char):x}}}" for char in text
    )


def _slashed(regex: str) -> str:
    """A regex as it can stand between slashes."""
    replaced = {"/": "\\/", "\n": "\\n", "\\\n": "\\n"}
    return _UNSAFE.sub(lambda found: replaced.get(found[0], found[0]), regex)


def _may_end_free(part: Part) -> bool:
    match part:
        case FreeText():
            return True
        case Seq(parts):
            return bool(parts) and _may_end_free(parts[-1])
        case OneOf(options):
            return any(_may_end_free(option) for option in options)
        case Repeat(inner):
            return _may_end_free(inner)
    return False
