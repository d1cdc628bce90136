"""A short text that a regex matches: a guess for the search of an ending, never a promise.

Owns one function. Python's own regex parser reads the pattern; engines differ at the edges, so who
uses the text lets a guide check it.
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
