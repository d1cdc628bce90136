"""Finds a structure's JSON texts again in a finished text, and has each judged where it stands.

The grammar has already seen to the form, so this reads it loosely: what a pattern matches is not
asked again. It goes through the parts once with every place where each may begin, so that its
cost does not grow with the number of ways in which a text can be read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

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

# Says whether a JSON text is valid by the source of a `JsonPart`.
IsValid = Callable[[str, str], bool]

_DECODER = json.JSONDecoder()


def can_be_read(root: Part, text: str, is_valid: IsValid) -> bool:
    """Whether the whole text can be read as this structure with valid JSON in every place."""
    return len(text) in _Reading(text, is_valid).after(root, {0})


class _Reading:
    """One text, and where in it a part may end."""

    def __init__(self, text: str, is_valid: IsValid) -> None:
        self._text = text
        self._is_valid = is_valid
        self._json_ends: dict[tuple[str, int], int | None] = {}

    def after(self, part: Part, starts: set[int]) -> set[int]:
        """Where the part may end that begins at one of `starts`."""
        match part:
            case Text(literal) | Marker(literal):
                fits = (at for at in starts if self._text.startswith(literal, at))
                return {at + len(literal) for at in fits}
            case JsonPart(source):
                ends = (self._json_end(source, at) for at in starts)
                return {end for end in ends if end is not None}
            case Pattern() | Grammar() | FreeText():
                return {end for span in self._spans(part, starts) for end in span}
            case Seq(parts):
                return self._after_seq(parts, starts)
            case OneOf(options):
                return set[int]().union(*(self.after(option, starts) for option in options))
            case Repeat():
                return self._after_repeat(part, starts)

    def _after_seq(self, parts: Sequence[Part], starts: set[int]) -> set[int]:
        if not parts or not starts:
            return starts
        match parts:
            # The places in long free text are many, those of the text that ends it few.
            case [
                (Pattern() | Grammar() | FreeText()) as free,
                (Text(literal) | Marker(literal)),
                *rest,
            ]:
                spans = self._spans(free, starts)
                return self._after_seq(rest, {end for s in spans for end in self._find(literal, s)})
        return self._after_seq(parts[1:], self.after(parts[0], starts))

    def _find(self, literal: str, span: range) -> Iterator[int]:
        """Where a text ends that begins in a span."""
        at = self._text.find(literal, span.start)
        while 0 <= at < span.stop:
            yield at + len(literal)
            at = self._text.find(literal, at + 1)

    def _json_end(self, source: str, at: int) -> int | None:
        """Where the JSON ends that begins at a place and is valid."""
        if (source, at) not in self._json_ends:
            try:
                _, end = _DECODER.raw_decode(self._text, at)
            except (ValueError, RecursionError):
                end = None
            if end is not None and not self._is_valid(source, self._text[at:end]):
                end = None
            self._json_ends[source, at] = end
        return self._json_ends[source, at]

    def _spans(self, part: Pattern | Grammar | FreeText, starts: set[int]) -> Iterator[range]:
        """Every place up to the first excluded text."""
        excludes = part.excludes if isinstance(part, FreeText) else ()
        past = 0
        for at in sorted(starts):
            if at < past:  # an earlier start reaches all that this one does
                continue
            found = (self._text.find(exclude, at) for exclude in excludes)
            past = min((place for place in found if place >= 0), default=len(self._text)) + 1
            yield range(at, past)

    def _after_repeat(self, repeat: Repeat, starts: set[int]) -> set[int]:
        """Rounds until one leads nowhere new, or as many as are allowed."""
        reached = set(starts) if repeat.at_least == 0 else set()
        seen, num_rounds = set(starts), 0
        while starts and num_rounds != repeat.at_most:
            starts = self.after(repeat.part, starts)
            num_rounds += 1
            if num_rounds >= repeat.at_least:
                reached |= starts
                if seen.issuperset(starts):
                    break
                seen |= starts
        return reached
