"""Finds a structure's JSON texts again in a finished text.

The grammar has already seen to the form, so this reads it loosely: what a pattern matches is not
asked again. It goes through the parts once with every place where each may begin, so that its
cost does not grow with the number of ways in which a text can be read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

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

# One way to read a text: the source of each `JsonPart` in it, and that part's JSON.
Found = tuple[tuple[str, str], ...]
# Places in the text, and the ways that lead there, likeliest first.
_Places = Mapping[int, tuple[Found, ...]]

# Ways kept per place; two differ only where one JSON text fits two schemas.
MAX_WAYS = 8
_DECODER = json.JSONDecoder()


def json_texts(root: Part, text: str) -> tuple[Found, ...]:
    """The ways to read the whole text as this structure, none where it does not fit."""
    return _after(root, text, {0: ((),)}).get(len(text), ())


def _after(part: Part, text: str, starts: _Places) -> _Places:
    """Where the part may end that begins at one of `starts`."""
    match part:
        case Text(literal) | Marker(literal):
            fits = (at for at in starts if text.startswith(literal, at))
            return {at + len(literal): starts[at] for at in fits}
        case JsonPart(source):
            return _after_json(source, text, starts)
        case Pattern() | Grammar():
            return _after_any(text, starts, ())
        case FreeText(excludes):
            return _after_any(text, starts, excludes)
        case Seq(parts):
            for inner in parts:
                starts = _after(inner, text, starts)
            return starts
        case OneOf(options):
            return _united(_after(option, text, starts) for option in options)
        case Repeat():
            return _after_repeat(part, text, starts)


def _after_json(source: str, text: str, starts: _Places) -> _Places:
    ends: dict[int, tuple[Found, ...]] = {}
    for at, ways in starts.items():
        try:
            _, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            continue
        ends[end] = tuple((*way, (source, text[at:end])) for way in ways)
    return ends


def _after_any(text: str, starts: _Places, excludes: tuple[str, ...]) -> _Places:
    """Every place up to the first excluded text, nearest first."""
    ends: dict[int, tuple[Found, ...]] = {}
    for at in sorted(starts):
        if at in ends:  # an earlier start reaches all that this one does
            continue
        found = (text.find(exclude, at) for exclude in excludes)
        limit = min((place for place in found if place >= 0), default=len(text))
        ends.update(dict.fromkeys(range(at, limit + 1), starts[at]))
    return ends


def _after_repeat(repeat: Repeat, text: str, starts: _Places) -> _Places:
    """Rounds until one leads nowhere new, or as many as are allowed."""
    reached = [starts] if repeat.at_least == 0 else []
    seen: set[int] = set(starts)
    num_rounds = 0
    while starts and num_rounds != repeat.at_most:
        starts = _after(repeat.part, text, starts)
        num_rounds += 1
        if num_rounds >= repeat.at_least:
            reached.append(starts)
            if seen.issuperset(starts):
                break
            seen.update(starts)
    return _united(reversed(reached))


def _united(places: Iterable[_Places]) -> _Places:
    united: dict[int, tuple[Found, ...]] = {}
    for one in places:
        for at, ways in one.items():
            united[at] = (*united.get(at, ()), *ways)[:MAX_WAYS]
    return united
