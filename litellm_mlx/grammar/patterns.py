r"""Regexes of a schema, spelled so that every engine reads in them what ECMA-262 says.

Owns the spelling of character classes and escapes; the rest of a regex is the same everywhere, and
an engine refuses what it lacks. JSON Schema's regexes are ECMA-262's. The grammar engine and the
validator read Rust's, where `[a&&b]`, `[[a]`, `[+--]` and `\<` say something else, and in which
`[\w-.]` is an error; Python, and with it Pydantic, has wider ideas of `\w`, `\d` and `\s`.

For the grammar engine no class holds NUL. A text may not hold it either, since JSON writes it as
`\u0000` and `matcher` takes no such escape, so nothing is lost; but of a class with all control
characters llguidance 1.9.1 (derivre's `quote_byteset`) forgets that a quote or a backslash is not
in it: `[^"]` takes `\"`. That ends with a release in which `{"pattern": "^[^\"]$"}` does not
accept `"\""`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

_LAST = 0x10FFFF
# A class that has nothing in it, in every dialect.
_NEVER = r"[^\x00-\U0010ffff]"
# Comments and whitespace mean something else in a regex with this flag.
_HAS_X_FLAG = re.compile(r"\(\?[a-zA-Z]*x")
# With this one a dot is every character, elsewhere none that ends a line. ECMA-262 knows four of
# these, Python and Rust one; jsonschema_rs reads a dot as ECMA-262 does from 0.61 on.
_HAS_S_FLAG = re.compile(r"\(\?[a-zA-Z]*s")
_NARROWEST_DOT = r"[^\x00\n\r\u2028\u2029]"
_QUANTIFIER = re.compile(r"\{[0-9]+(?:,[0-9]*)?\}|\{,[0-9]+\}")
_PROPERTY = re.compile(r"\\[pP](?:\{[^{}]*\}|[A-Z])")
_CODE_POINT = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|[ux]\{([0-9a-fA-F]{1,8})\}|U([0-9a-fA-F]{8}))"
)
_LOW_SURROGATE = re.compile(r"\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_CONTROLS = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11}
_SET_SYNTAX = frozenset("\\[]^-&~")
# Without one of these a regex means the same to all engines, and holds no NUL.
_IS_ORDINARY = re.compile(
    r"(?:[^\\\[\]{}.\x00]|\\[dw.\-/+*?()\[\]{}|^$@:_ ]|\{[0-9]+(?:,[0-9]*)?\}"
    r"|\[(?:[^\\\[\]^&~\x00-]|[0-9A-Za-z]-[0-9A-Za-z]|\\[dw./](?!-[^\]])|\\-)+-?\])*"
).fullmatch

_ECMA_SPACE = r"\t-\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
_NOT_ECMA_SPACE = (
    r"\x01-\x08\x0e-\x1f!-\x9f\xa1-\u167f\u1681-\u1fff\u200b-\u2027\u202a-\u202e\u2030-\u205e"
    r"\u2060-\u2fff\u3001-\ufefe\uff00-\U0010ffff"
)
_WORD = "0-9A-Za-z_"
_NOT_WORD = r"\x01-/:-@\[-\^`{-\U0010ffff"
_DIGIT, _NOT_DIGIT = "0-9", r"\x01-/:-\U0010ffff"

_AS_ECMA = {
    "s": _ECMA_SPACE,
    "S": _NOT_ECMA_SPACE,
    "w": _WORD,
    "W": _NOT_WORD,
    "d": _DIGIT,
    "D": _NOT_DIGIT,
}
# What is in the class for ECMA-262, Python and Rust alike.
_NARROWEST = {
    **_AS_ECMA,
    "s": _ECMA_SPACE.removesuffix(r"\ufeff"),
    # The control characters of Python's spaces lie among others that JSON cannot write either.
    "S": _NOT_ECMA_SPACE.replace(r"\x0e-\x1f!-\x9f", r"!-\x84\x86-\x9f"),
    "W": r"[^\x00\p{Alphabetic}\p{M}\p{N}\p{Pc}\u200c\u200d]",
    "D": r"[^\x00\p{Nd}]",
}
# What is in it for one of them.
_WIDEST = {
    **_AS_ECMA,
    "s": _ECMA_SPACE + r"\x1c-\x1f\x85",
    "S": _NOT_ECMA_SPACE + r"\ufeff",
    "w": r"\p{Alphabetic}\p{M}\p{N}\p{Pc}\u200c\u200d",
    "d": r"\p{Nd}",
}


@dataclass(frozen=True, slots=True)
class _Spelling:
    r"""How to write what engines read differently.

    Attributes:
        inside: of `\s` and its like in a class.
        inside_negated: the same in a class that is negated.
        dot: any character; in a regex of names the widest, as what it leaves out is another name.
        has_nul: whether classes may hold NUL.
    """

    inside: Mapping[str, str]
    inside_negated: Mapping[str, str]
    dot: str = "."
    has_nul: bool = False


_SAME = {letter: f"\\{letter}" for letter in _AS_ECMA}
_FOR_VALIDATOR = _Spelling(_SAME, _SAME, has_nul=True)
_FOR_NAMES = _Spelling(_AS_ECMA, _AS_ECMA)
_FOR_VALUES = _Spelling(_NARROWEST, _WIDEST, dot=_NARROWEST_DOT)


class _UnreadableError(Exception):
    """Engines differ about a part of the regex, and no spelling settles it."""


class _Member(NamedTuple):
    """One member of a class: a code point, or a shorthand or property as it is written."""

    code_point: int | None
    text: str
    end: int


@lru_cache(maxsize=1024)
def plain_pattern(pattern: str) -> str:
    r"""Spell a regex so that the validator reads it as ECMA-262 does; as it is where nothing helps.

    `[\w-.]` and a brace that begins no count are taken as browsers take them.
    """
    try:
        return pattern if _IS_ORDINARY(pattern) else _spelled(pattern, _FOR_VALIDATOR)
    except _UnreadableError:
        return pattern


@lru_cache(maxsize=1024)
def value_pattern(pattern: str) -> str | None:
    """Spell a regex of values for the grammar engine, so that it matches in no dialect too much.

    None where engines differ about it and no spelling settles it.
    """
    try:
        return pattern if _IS_ORDINARY(pattern) else _spelled(pattern, _FOR_VALUES)
    except _UnreadableError:
        return None


@lru_cache(maxsize=1024)
def name_pattern(pattern: str) -> str | None:
    """Spell a regex of names for the grammar engine, exactly: what it leaves out is another name.

    Python reads the result alike. None as for `value_pattern`.
    """
    try:
        return pattern if _IS_ORDINARY(pattern) else _spelled(pattern, _FOR_NAMES)
    except _UnreadableError:
        return None


def _spelled(pattern: str, spelling: _Spelling) -> str:
    if _HAS_X_FLAG.search(pattern):
        raise _UnreadableError
    has_s_flag = bool(_HAS_S_FLAG.search(pattern))
    written: list[str] = []
    at = 0
    while at < len(pattern):
        if pattern[at] == "[":
            text, at = _class(pattern, at, spelling)
        elif pattern[at] == "\\":
            text, at = _escape(pattern, at, spelling)
        elif pattern[at] == "." and not has_s_flag:
            text, at = spelling.dot, at + 1
        else:
            text, at = _other(pattern, at, spelling)
        written.append(text)
    return "".join(written)


def _other(pattern: str, at: int, spelling: _Spelling) -> tuple[str, int]:
    """A character that is neither an escape nor the beginning of a class."""
    if pattern[at] == "{":
        count = _QUANTIFIER.match(pattern, at)
        return (count[0], count.end()) if count else (r"\{", at + 1)
    if pattern[at] in "]}":
        return f"\\{pattern[at]}", at + 1  # counted, as in `]*`, it is an error elsewhere
    if pattern[at] == "\0" and not spelling.has_nul:
        return _NEVER, at + 1
    return pattern[at], at + 1


def _escape(pattern: str, at: int, spelling: _Spelling) -> tuple[str, int]:
    r"""An escape outside of a class; what has no code point, as `\b`, is left to the engine."""
    letter = pattern[at + 1 : at + 2]
    if letter in spelling.inside:
        return (f"\\{letter}" if spelling.has_nul else f"[{spelling.inside[letter]}]"), at + 2
    if letter.isalnum() and letter not in "xuUc0pPnrtfv":
        return pattern[at : at + 2], at + 2
    member = _member(pattern, at)
    if member.code_point is None:
        return _property(member.text, spelling), member.end
    if member.code_point == 0 and not spelling.has_nul:
        return _NEVER, member.end
    return _outside(member.code_point), member.end


def _property(text: str, spelling: _Spelling) -> str:
    if spelling.has_nul:
        return text
    return rf"[^\x00\p{text[2:]}]" if text[1] == "P" else rf"[{text}&&[^\x00]]"


def _class(pattern: str, start: int, spelling: _Spelling) -> tuple[str, int]:
    """A class, without what engines read as operators in it; its text and where it ends."""
    at = start + 1
    is_negated = pattern[at : at + 1] == "^"
    at += is_negated
    if pattern[at : at + 1] == "]":
        raise _UnreadableError  # empty in ECMA-262, a bracket elsewhere
    table = spelling.inside_negated if is_negated else spelling.inside
    members: list[str] = []
    shorthands: set[str] = set()
    while pattern[at : at + 1] != "]":
        first = _member(pattern, at)
        at = first.end
        last = _member(pattern, at + 1) if _is_range(pattern, first, at) else None
        if first.code_point is None:
            members.append(_shorthand(first.text, table, spelling))
            shorthands.add(first.text)
        elif last is None or last.code_point is None:
            is_plain = first.text == "-" and spelling.has_nul  # every engine reads it at the ends
            is_plain = is_plain and (not members or pattern[at : at + 1] == "]")
            single = _range(first.code_point, first.code_point, spelling)
            members.append("-" if is_plain else single)
        elif last.code_point < first.code_point:
            raise _UnreadableError
        else:
            members.append(_range(first.code_point, last.code_point, spelling))
            at = last.end
    return _written_class("".join(members), shorthands, is_negated, spelling), at + 1


def _written_class(inner: str, shorthands: set[str], is_negated: bool, spelling: _Spelling) -> str:
    if is_negated:
        return f"[^{inner}]" if spelling.has_nul else rf"[^{inner}\x00]"
    if not spelling.has_nul and any(text.swapcase() in shorthands for text in shorthands):
        return r"[\x01-\U0010ffff]"  # `[\s\S]` is how anything at all is written
    return f"[{inner}]" if inner else _NEVER


def _is_range(pattern: str, first: _Member, at: int) -> bool:
    """Whether a hyphen follows that is no member itself."""
    is_hyphen = pattern[at : at + 1] == "-" and pattern[at + 1 : at + 2] not in ("]", "")
    return is_hyphen and first.code_point is not None


def _shorthand(text: str, table: Mapping[str, str], spelling: _Spelling) -> str:
    return table[text[1]] if text[1] in table else _property(text, spelling)


def _member(pattern: str, at: int) -> _Member:
    """The character or escape at this place of a class.

    Raises:
        _UnreadableError: the class does not end, or engines differ about the escape.
    """
    character = pattern[at : at + 1]
    if character != "\\":
        if not character:
            raise _UnreadableError
        return _Member(ord(character), character, at + 1)
    letter = pattern[at + 1 : at + 2]
    if letter in _AS_ECMA:
        return _Member(None, pattern[at : at + 2], at + 2)
    if letter in ("p", "P"):
        found = _PROPERTY.match(pattern, at)
        if found is None:
            raise _UnreadableError
        return _Member(None, found[0], found.end())
    return _escaped_character(pattern, at, letter)


def _escaped_character(pattern: str, at: int, letter: str) -> _Member:
    if letter in _CONTROLS:
        return _Member(_CONTROLS[letter], "", at + 2)
    if letter == "b":
        return _Member(8, "", at + 2)
    if letter == "0" and not pattern[at + 2 : at + 3].isdigit():
        return _Member(0, "", at + 2)
    control = pattern[at + 2 : at + 3]
    if letter == "c" and control.isascii() and control.isalpha():
        return _Member(ord(control) % 32, "", at + 3)
    if found := _CODE_POINT.match(pattern, at):
        return _numbered(pattern, found)
    if letter.isalnum() or not letter:
        raise _UnreadableError
    return _Member(ord(letter), letter, at + 2)


def _numbered(pattern: str, found: re.Match[str]) -> _Member:
    """A character by its number; of a pair of surrogates both are read."""
    code_point, end = int(next(filter(None, found.groups())), 16), found.end()
    if 0xD800 <= code_point < 0xDC00 and (low := _LOW_SURROGATE.match(pattern, end)):
        code_point = 0x10000 + (code_point - 0xD800 << 10) + int(low[1], 16) - 0xDC00
        end = low.end()
    if code_point > _LAST or 0xD800 <= code_point < 0xE000:
        raise _UnreadableError
    return _Member(code_point, "", end)


def _range(first: int, last: int, spelling: _Spelling) -> str:
    if first == 0 and not spelling.has_nul:
        if last == 0:
            return ""
        first = 1
    if first == last:
        return _inside(first)
    return f"{_inside(first)}-{_inside(last)}"


def _inside(code_point: int) -> str:
    """A character as a class holds it."""
    character = chr(code_point)
    return f"\\{character}" if character in _SET_SYNTAX else _readable(character)


def _outside(code_point: int) -> str:
    """A character as it stands for itself outside of a class."""
    character = chr(code_point)
    is_mark = character.isascii() and character.isprintable() and not character.isalnum()
    if is_mark and character not in "<>":  # Rust's `\<` is the beginning of a word
        return f"\\{character}"
    return _readable(character)


def _readable(character: str) -> str:
    code_point = ord(character)
    if character.isprintable() and not 0xD800 <= code_point < 0xE000:
        return character
    if code_point < 0x100:
        return f"\\x{code_point:02x}"
    return f"\\u{code_point:04x}" if code_point < 0x10000 else f"\\U{code_point:08x}"
