"""How large a JSON schema may be where the engine's work grows faster than the schema.

Owns limits that no schema meets that people write: of MaskBench's 1,000 the largest has 492
subschemas, 122 properties, 5 patterns and 19 branches in one place. The engine bounds its own
memory, but not the time for these, and it cannot be interrupted.
"""

from __future__ import annotations

from typing import Any

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.json_schema import Schema

# Seconds that llguidance 1.9.1 took, with the GIL dropped (2 cores of an AMD EPYC, 2026-11-21):
MAX_PROPERTIES = 1_000  # 2,000: 0.3; 4,000: 1.2; 15,000: 16
MAX_PROPERTY_PAIRS = 2_000_000  # of the properties of one object, over all; 9,000,000: 1.2
MAX_PATTERNS = 100  # 300: 0.9
MAX_BRANCHES = 1_000  # 2,000: 0.4
MAX_CONTAINERS = 2_000  # objects and arrays in `enum` and `const`; 6,000: 0.4; 20,000: 4
MAX_OBJECTS = 10_000  # JSON objects in the whole schema; 20,000: refused by the engine after 0.1

# Characters that a schema needs to be over one of these; 100 patterns are the shortest way.
MIN_COSTLY_SOURCE = 700

_LISTS = {
    "properties": MAX_PROPERTIES,
    "patternProperties": MAX_PATTERNS,
    "anyOf": MAX_BRANCHES,
    "oneOf": MAX_BRANCHES,
    "allOf": MAX_BRANCHES,
    "required": MAX_PROPERTIES,
}


def check_budget(schema: Schema) -> None:
    """Refuse a schema that the engine would take seconds for.

    Raises:
        ConstraintError: says of what there is too much, with the number and the limit.
    """
    num_objects, num_pairs, todo = 0, 0, [schema]
    while todo:
        at: Any = todo.pop()
        if isinstance(at, list):
            todo += at
        elif isinstance(at, dict):
            num_objects += 1
            properties = at.get("properties")
            num_pairs += len(properties) ** 2 if isinstance(properties, dict) else 0
            for keyword in at.keys() & _LISTS.keys():
                if isinstance(at[keyword], dict | list):
                    _check(len(at[keyword]), _LISTS[keyword], f"entries in one `{keyword}`")
            for keyword in at.keys() & {"enum", "const"}:
                _check(_count_containers(at[keyword]), MAX_CONTAINERS, f"parts in one `{keyword}`")
            todo += at.values()
    _check(num_objects, MAX_OBJECTS, "parts")
    _check(num_pairs, MAX_PROPERTY_PAIRS, "pairs of properties in its objects")


def _check(number: int, limit: int, what: str) -> None:
    if number > limit:
        raise ConstraintError(f"the schema has {number:,} {what}, the limit is {limit:,}; split it")


def _count_containers(value: Any) -> int:
    found, todo = 0, [value]
    while todo:
        at = todo.pop()
        if isinstance(at, dict | list):
            found += 1
            todo += at.values() if isinstance(at, dict) else at
    return found
