"""Texts that a regex matches: a short one as a guess for the search of an ending, or all of them.

Python's own regex parser reads the pattern; engines differ at the edges, so who uses an example
lets a guide check it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

MAX_EXAMPLE = 2_000  # characters; a longer one helps nobody to end soon

# Tried in turn for "any character but ..."; the first are plain in JSON, URLs and names.
_CHARACTERS = "0a A-_./:@+,;#" + "".join(map(chr, range(33, 127))) + "é中"
_CLASSES = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}


@lru_cache(maxsize=1024)
def regex_example(pattern: str) -> str | None:
    """Give a text that the pattern probably matches as a whole, or None."""
    parser: Any = re._parser  # type: ignore[attr-defined]  # CPython's, the same in 3.11 to 3.14
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sets inside sets, which other engines have
            text = _sequence(parser.parse(pattern))
    except (re.error, RecursionError, OverflowError, _NoExample):
        return None
    return text if len(text) <= MAX_EXAMPLE else None


def regex_words(pattern: str, limit: int) -> frozenset[str] | None:
    """Give every text that an anchored pattern matches; None where more than `limit`, or unknown.

    Which texts they are is certain, unlike an example.
    """
    if not (pattern.startswith("^") and pattern.endswith("$")):
        return None
    parser: Any = re._parser  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parsed = parser.parse(pattern)
        first, *items, last = parsed
        is_whole = str(first[0]) == str(last[0]) == "AT"  # not so in `^a|b$`
        if not is_whole or parsed.state.flags & ~re.UNICODE:
            return None
        return frozenset(_words(items, limit))
    except (re.error, RecursionError, OverflowError, ValueError, _NoExample):
        return None


def _words(items: Iterable[Any], limit: int) -> set[str]:
    """All texts of parsed items in a row.

    Raises:
        _NoExample: they are too many, or not known.
    """
    words = {""}
    for name, argument in items:
        ends = _words_of(str(name), argument, limit)
        words = {word + end for word in words for end in ends}
        if len(words) > limit:
            raise _NoExample
    return words


def _words_of(name: str, argument: Any, limit: int) -> set[str]:
    if name == "LITERAL":
        return {chr(argument)}
    if name == "IN" and all(str(member) == "LITERAL" for member, _ in argument):
        return {chr(code_point) for _, code_point in argument}
    if name == "BRANCH":
        return set().union(*(_words(option, limit) for option in argument[1]))
    if name == "SUBPATTERN" and not argument[1] and not argument[2]:
        return _words(argument[-1], limit)
    if name in ("MAX_REPEAT", "MIN_REPEAT") and argument[1] <= limit:
        at_least, at_most, inner = argument
        counts = range(at_least, at_most + 1)
        return set().union(*(_words(list(inner) * count, limit) for count in counts))
    raise _NoExample


class _NoExample(Exception):
    """The pattern has a part of which no example is known."""


def _sequence(items: Iterable[Any]) -> str:
    return "".join(_one(str(name), argument) for name, argument in items)


def _one(name: str, argument: Any) -> str:
    """An example of one item of the parsed pattern."""
    if name == "LITERAL":
        return chr(argument)
    if name in ("NOT_LITERAL", "IN"):
        return _one_of(argument if name == "IN" else [("NEGATE", None), ("LITERAL", argument)])
    if name == "ANY":
        return "a"
    if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        at_least, _, items = argument
        if at_least > MAX_EXAMPLE:
            raise _NoExample
        return _sequence(items) * at_least if at_least else ""
    if name == "BRANCH":
        return min((_sequence(option) for option in argument[1]), key=len)
    if name in ("SUBPATTERN", "ATOMIC_GROUP"):
        return _sequence(argument[-1] if name == "SUBPATTERN" else argument)
    if name in ("AT", "ASSERT_NOT"):
        return ""
    raise _NoExample


def _one_of(members: list[Any]) -> str:
    """The first of the usual characters that a set has."""
    is_negated = str(members[0][0]) == "NEGATE"
    members = members[is_negated:]
    for character in _CHARACTERS:
        if any(_has(member, character) for member in members) != is_negated:
            return character
    if is_negated or str(members[0][0]) == "CATEGORY":
        raise _NoExample
    first = members[0][1]
    return chr(first[0] if isinstance(first, tuple) else first)


def _has(member: tuple[Any, Any], character: str) -> bool:
    name, argument = str(member[0]), member[1]
    if name == "LITERAL":
        return ord(character) == int(argument)
    if name == "RANGE":
        return bool(argument[0] <= ord(character) <= argument[1])
    return bool(re.match(_CLASSES[str(argument)], character))
