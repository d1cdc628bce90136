"""The "Constraints:" line of a DSPy field, added to the field's JSON schema.

DSPy prints what `OutputField(ge=0)` asks for and neither sends nor checks it. So a limit is added
only where it is certain to leave something valid that is short enough to be written.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

# DSPy's phrases (signatures/field.py), for numbers and for what has a length.
_NUMBERS = {
    "greater than: ": "exclusiveMinimum",
    "greater than or equal to: ": "minimum",
    "less than: ": "exclusiveMaximum",
    "less than or equal to: ": "maximum",
    "a multiple of the given number: ": "multipleOf",
}
_LENGTHS = {"minimum length: ": "min", "maximum length: ": "max"}
_UNUSED = "allow 'inf', '-inf', 'nan' values: "
PHRASES = (*_NUMBERS, *_LENGTHS, _UNUSED)

_ITEM = re.compile(f"({'|'.join(map(re.escape, PHRASES))})([^ ,]+)(?:, |$)")
_SIZES = {"string": "Length", "array": "Items"}  # the engine counts no properties of an object
# with one of these a schema leaves so little that a limit might leave nothing
_NARROW = frozenset("const enum format pattern uniqueItems".split())

# Ours: a longer text or list might not fit the caller's max_tokens, and the request be refused.
_MAX_MIN_LENGTH = 100

Limits = dict[str, int | float]


def limited(schema: dict[str, Any], constraints: str) -> dict[str, Any]:
    """Copy a field's schema with the limits that DSPy printed for the field.

    Limits of other types than JSON's (of dates), contradictory ones, and those of a schema that
    has some itself are left out.
    """
    limits = _limits(constraints)
    if not limits:
        return schema
    options = schema.get("anyOf")
    if isinstance(options, list):  # of an optional field they are meant for the value
        return {**schema, "anyOf": [_with_limits(option, limits) for option in options]}
    bounded: dict[str, Any] = _with_limits(schema, limits)
    return bounded


def _limits(constraints: str) -> Limits:
    """Phrases with their numbers; none at all where the line is not wholly DSPy's."""
    found: Limits = {}
    place = 0
    while place < len(constraints):
        match = _ITEM.match(constraints, place)
        if match is None:
            return {}
        place = match.end()
        number = _number(match[2])
        if number is None and match[1] != _UNUSED:
            return {}
        if number is not None:
            found[match[1]] = number
    return found


def _number(text: str) -> int | float | None:
    try:
        number = json.loads(text)
    except ValueError:
        return None
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    return number if math.isfinite(number) else None


def _with_limits(schema: Any, limits: Limits) -> Any:
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind in ("integer", "number"):
        added = {key: limits[phrase] for phrase, key in _NUMBERS.items() if phrase in limits}
        is_kept = _leaves_a_number(added, kind)
    elif kind in _SIZES:
        size = _SIZES[kind]
        added = {end + size: limits[phrase] for phrase, end in _LENGTHS.items() if phrase in limits}
        is_kept = _leaves_a_length(added.get("min" + size, 0), added.get("max" + size, math.inf))
    else:
        return schema
    is_kept = is_kept and not schema.keys() & (_NARROW | added.keys())
    return {**schema, **added} if is_kept else schema


def _leaves_a_number(added: Limits, kind: str) -> bool:
    """Whether some number is within the bounds; a step is only judged, and kept, for integers."""
    step = added.get("multipleOf", 1)
    if kind == "number":
        low = max(added.get("minimum", -math.inf), added.get("exclusiveMinimum", -math.inf))
        high = min(added.get("maximum", math.inf), added.get("exclusiveMaximum", math.inf))
        return "multipleOf" not in added and low < high
    if not isinstance(step, int) or step < 1:
        return False
    lows = [math.ceil(added["minimum"])] if "minimum" in added else []
    lows += [math.floor(added["exclusiveMinimum"]) + 1] if "exclusiveMinimum" in added else []
    highs = [math.floor(added["maximum"])] if "maximum" in added else []
    highs += [math.ceil(added["exclusiveMaximum"]) - 1] if "exclusiveMaximum" in added else []
    return not lows or not highs or min(highs) // step * step >= max(lows)


def _leaves_a_length(least: int | float, most: int | float) -> bool:
    are_counts = isinstance(least, int) and (isinstance(most, int) or math.isinf(most))
    return are_counts and 0 <= least <= min(most, _MAX_MIN_LENGTH)
