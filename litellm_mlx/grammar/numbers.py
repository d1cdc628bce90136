"""Numbers in a JSON schema, brought into the range in which the engine computes exactly.

Owns bounds, multiples and constants, texts in constants too. llguidance 1.9.1 reads numbers as
64-bit floats, writes other digits for integers beyond 2^53 than the schema has (and dies of -2^63),
and lets a value meet an exclusive bound in narrow ranges ("0" for `exclusiveMinimum: 0, maximum:
0.5`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import ROUND_CEILING, ROUND_DOWN, Decimal, localcontext
from typing import Any

from litellm_mlx.errors import ConstraintError

MAX_EXACT = 2**53

# With bounds a multiple is at most this long; without, its digits could go on for ever because
# no prefix need be a multiple.
MAX_MULTIPLE = 10**15

# The engine builds no range from -2^63 or from a float of 2^63 and more.
MAX_BOUND = 10**18

# The engine's parser (serde_json without float_roundtrip) takes 0.9999999999999999 for 1, but is
# exact for 15 digits times a power of ten up to 22. `number_limit` lets a fraction have 20 digits.
MAX_READ_DIGITS = 15
MAX_READ_EXPONENT = 22
MIN_EXPONENT = -20
MIN_POSITIVE = 1e-20  # stands for "more than 0"

BOUNDS = frozenset("minimum maximum exclusiveMinimum exclusiveMaximum multipleOf".split())

# Control characters that JSON has no short escape for; `matcher` lets no text hold a \u escape.
_UNWRITABLE = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]")


def check_constants(schema: dict[str, Any]) -> None:
    """Refuse numbers in `const` and `enum` that the engine would write with other digits.

    Raises:
        ConstraintError: an integer beyond 2^53 or a float of more than 15 digits, at any depth.
    """
    for keyword in ("const", "enum"):
        for value in _leaves(schema.get(keyword)):
            if not _is_exact(value):
                raise ConstraintError(
                    f"`{keyword}` holds {value!r:.60}, which the engine cannot write exactly; "
                    f"use a string, a bound, or at most {MAX_READ_DIGITS} digits"
                )


def is_exact_constant(value: object) -> bool:
    """Whether the engine writes just this value of a `const` or `enum`."""
    return all(map(_is_exact, _leaves(value)))


def _leaves(value: object) -> Iterator[object]:
    """The values inside a JSON value that hold no other, names of properties left out."""
    todo = [value]
    while todo:
        at = todo.pop()
        if isinstance(at, dict):
            todo += at.values()
        elif isinstance(at, list):
            todo += at
        else:
            yield at


def _is_exact(value: object) -> bool:
    """Whether the engine writes a value without parts as it is meant."""
    if isinstance(value, str):
        return not _UNWRITABLE.search(value)
    if not isinstance(value, int | float):
        return True
    if isinstance(value, int):
        return abs(value) <= MAX_EXACT
    _, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    return len(digits) <= MAX_READ_DIGITS and abs(int(exponent)) <= MAX_READ_EXPONENT


def narrow_bounds(schema: dict[str, Any]) -> None:
    """Leave at most one lower and one upper bound, both inclusive; changes `schema`.

    Rounding to a float keeps order, so a text within inclusive bounds parses to a float within
    them; 0.99999999999999999999 is less than 1 as a text and equal to it as a float. Bounds of
    more than 15 digits move inwards to 15.
    """
    if BOUNDS.isdisjoint(schema):
        return
    types = schema.get("type")
    names = {types} if isinstance(types, str) else set(types or ())
    is_integer = "integer" in names and "number" not in names
    lower = _inclusive(schema, "exclusiveMinimum", "minimum", is_integer, sign=1)
    upper = _inclusive(schema, "exclusiveMaximum", "maximum", is_integer, sign=-1)
    limit = MAX_MULTIPLE if "multipleOf" in schema else MAX_BOUND
    if lower is not None or upper is not None or "multipleOf" in schema:
        _set(schema, "minimum", None if lower is None else max(lower, -limit))
        _set(schema, "maximum", None if upper is None else min(upper, limit))
    if "multipleOf" in schema:
        schema.setdefault("minimum", -limit)
        schema.setdefault("maximum", limit)


def short_decimals(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Schemas of the numbers within the bounds that the engine's range leaves out.

    A text that is a beginning of the bound's own digits is not in the regex that llguidance 1.9.1
    (`lexi_0_to_x`) makes of a bound away from zero: 0.9 is not below 0.95, nor 12.0 below 12.05.
    That ends with a release that accepts 0.9 for `{"type": "number", "maximum": 0.95}`.

    Args:
        schema: bounded as `narrow_bounds` leaves it.
    """
    names = ("minimum", "maximum", "multipleOf")
    lower, upper, multiple = (Decimal(repr(schema[n])) if n in schema else None for n in names)
    found: dict[Decimal, dict[str, Any]] = {}
    for bound, sign in ((upper, 1), (lower, -1)):
        if bound is None or bound * sign < 0:
            continue
        for value in _beginnings(bound):
            is_inside = (lower is None or value >= lower) and (upper is None or value <= upper)
            if is_inside and not (value.is_zero() and sign < 0):
                if multiple is None or value % multiple == 0:
                    found[value] = _spelled(value, sign)
    return list(found.values())


def _beginnings(bound: Decimal) -> Iterator[Decimal]:
    """A bound cut to fewer decimals, to none too; not those that differ in a last zero only."""
    num_decimals = max(-int(bound.as_tuple().exponent), 0)
    if not num_decimals and bound:
        return
    yield Decimal(int(bound))
    for place in range(1, num_decimals):
        cut = bound.quantize(Decimal(1).scaleb(-place), ROUND_DOWN)
        if cut.as_tuple().digits[-1]:
            yield cut


def _spelled(value: Decimal, sign: int) -> dict[str, Any]:
    """A schema of one number; a whole one may have decimals, which a constant has not."""
    if value != value.to_integral_value():
        return {"type": "number", "enum": [float(value)]}  # draft 4 has no `const`
    ends = sorted((float(value), float(value) + sign * 0.4))
    return {"type": "number", "minimum": ends[0], "maximum": ends[1], "multipleOf": 0.5}


def _set(schema: dict[str, Any], keyword: str, bound: float | None) -> None:
    if bound is not None:
        schema[keyword] = bound


def _inclusive(
    schema: dict[str, Any], exclusive: str, inclusive: str, is_integer: bool, *, sign: int
) -> float | None:
    """Take the bounds of one side out of `schema`; give the tighter one, as an inclusive bound.

    `sign` is 1 for a lower bound, where inwards is up, and -1 for an upper one.
    """
    given, strict = schema.get(inclusive), schema.get(exclusive)
    if isinstance(strict, bool):  # Draft 4: says how `minimum` or `maximum` is meant
        schema.pop(exclusive)
        given, strict = (None, given) if strict else (given, None)
    bounds = []
    for bound, is_strict in ((given, False), (strict, True)):
        if isinstance(bound, int | float) and not isinstance(bound, bool):
            bounds.append(_inwards(bound, is_strict, is_integer, sign))
            schema.pop(exclusive if is_strict else inclusive, None)
            schema.pop(inclusive, None)
    if not bounds:
        return None
    return max(bounds) if sign > 0 else min(bounds)


def _inwards(bound: float, is_strict: bool, is_integer: bool, sign: int) -> float:
    """Nearest value on the inner side of a bound that the engine reads as it stands."""
    exact = Decimal(repr(bound))
    if exact.is_zero() and is_strict and not is_integer:
        return sign * MIN_POSITIVE
    exponent = max(exact.adjusted() - MAX_READ_DIGITS + 1, 0 if is_integer else MIN_EXPONENT)
    step = Decimal(sign).scaleb(exponent)
    with localcontext(prec=400):  # holds any float to its last digit
        steps = (exact / step).to_integral_value(ROUND_CEILING)
        inner = steps * step
        if is_strict and inner == exact:
            inner += step
    return int(inner) if inner == inner.to_integral_value() else float(inner)
