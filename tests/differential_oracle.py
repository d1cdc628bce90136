"""What a schema means, by the Python package jsonschema: ECMA's regexes, exact numbers.

Owns what that package leaves out or reads by Python's habits. Nothing of ours is asked.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import jsonschema
from jsonschema.validators import validator_for
from referencing.exceptions import Unresolvable

_SPACES = r" \t\n\r\f\v\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
_ESCAPES = {"d": "0-9", "w": "A-Za-z0-9_", "s": _SPACES}
_JSONSCHEMAS_FORMATS = ("date", "ipv4", "ipv6", "uuid", "regex", "email", "idn-email")
_TIME = re.compile(
    r"([01]\d|2[0-3]):([0-5]\d):([0-5]\d|60)(?:\.\d+)?(?:[zZ]|([+-])([01]\d|2[0-3]):([0-5]\d))",
    re.ASCII,
)


def _is_time(value: object) -> bool:
    """RFC 3339's time, for which the package jsonschema wants another one."""
    if not isinstance(value, str):
        return True
    found = _TIME.fullmatch(value)
    if found is None:
        return False
    hours, minutes, seconds, sign, offset_hours, offset_minutes = found.groups(default="0")
    offset = (int(offset_hours) * 60 + int(offset_minutes)) * (-1 if sign == "-" else 1)
    is_last_minute = (int(hours) * 60 + int(minutes) - offset) % 1440 == 1439
    return seconds != "60" or is_last_minute


def _is_date_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    date, separator, time = value[:10], value[10:11], value[11:]
    try:
        is_date = len(date) == 10 and bool(datetime.date.fromisoformat(date))
    except ValueError:
        return False
    return is_date and separator in ("T", "t") and _is_time(time)


def _format_checker(kind: Any) -> jsonschema.FormatChecker:
    """The formats that the package jsonschema checks by itself, and those of RFC 3339."""
    known = kind.FORMAT_CHECKER.checkers
    checker = jsonschema.FormatChecker([])
    checker.checkers = {name: known[name] for name in _JSONSCHEMAS_FORMATS if name in known}
    checker.checkers |= {"time": (_is_time, ()), "date-time": (_is_date_time, ())}
    return checker


def ecma(pattern: str) -> str:
    """A pattern with Python's meaning of what JSON Schema's patterns, which are ECMA's, mean."""
    out, in_class = "", False
    for token in re.findall(r"\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\.|.", pattern, re.DOTALL):
        if token[0] == "\\" and token[1:].lower() in _ESCAPES:
            members, is_negated = _ESCAPES[token[1:].lower()], token[1:].isupper()
            assert not (in_class and is_negated), pattern
            token = members if in_class else f"[{'^' if is_negated else ''}{members}]"
        elif token == "$" and not in_class:
            token = r"\Z"
        elif token == "." and not in_class:
            token = r"[^\n]"  # Rust's meaning and Python's; ECMA's leaves out three more
        in_class = (in_class or token == "[") and token != "]"
        out += token
    return out


def _in_python(schema: Any) -> Any:
    """A schema with its patterns as Python reads them and its numbers exact."""
    if isinstance(schema, dict):
        made = {}
        for key, value in schema.items():
            if key == "pattern" and isinstance(value, str):
                made[key] = ecma(value)
            elif key == "patternProperties" and isinstance(value, dict):
                made[key] = {ecma(name): _in_python(sub) for name, sub in value.items()}
            else:
                made[key] = _in_python(value)
        return made
    if isinstance(schema, list):
        return [_in_python(item) for item in schema]
    return Decimal(repr(schema)) if isinstance(schema, float) else schema


def _exact(digits: str) -> Decimal:
    """The number that readers make of it, which is a float, as it would be written."""
    return Decimal(repr(float(digits)))


def _is_integer(_: Any, value: Any) -> bool:
    if isinstance(value, Decimal):
        return value == value.to_integral_value()
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(_: Any, value: Any) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


def _multiple_of(_: Any, divisor: Any, value: Any, __: Any) -> Iterator[Any]:
    if _is_number(None, value):
        if (Fraction(value) / Fraction(divisor)).denominator != 1:
            yield jsonschema.ValidationError(f"{value} is not a multiple of {divisor}")


class Oracle:
    """Says by the Python package jsonschema whether a text is valid; numbers are exact."""

    def __init__(self, schema: Any) -> None:
        base = validator_for(schema, default=jsonschema.Draft202012Validator)
        types = base.TYPE_CHECKER.redefine_many({"integer": _is_integer, "number": _is_number})
        kind = jsonschema.validators.extend(base, {"multipleOf": _multiple_of}, type_checker=types)
        self._validator = kind(_in_python(schema), format_checker=_format_checker(base))

    @property
    def can_judge(self) -> bool:
        """Whether the package finds what the schema refers to."""
        try:
            for value in (None, 1, "a", [], {}):
                self._validator.is_valid(value)
        except Unresolvable:
            return False
        return True

    def is_valid(self, text: str) -> bool:
        """Whether the text is JSON that the schema accepts."""
        try:
            value = json.loads(text, parse_float=_exact)
        except ValueError:
            return False
        return bool(self._validator.is_valid(value))
