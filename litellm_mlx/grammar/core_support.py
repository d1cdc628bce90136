"""Which JSON schemas outlines_core turns into a right regex; the others are refused by name.

Owns that list only. The library itself ignores what it does not know (`minimum`, `uniqueItems`)
and misreads some of what it does (`allOf`, schemas without a type): its issues 147, 151, 259, 261.
What it compiles it may narrow: release 0.2.14 forbids a token that ends one byte after a point
where the whole text could end, as the "." of a number that is no part of an object or array.
"""

from __future__ import annotations

import json
import re
from typing import Any

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.disjoint import resolve
from litellm_mlx.grammar.json_schema import Schema, map_subschemas
from litellm_mlx.grammar.numbers import check_constants

_BY_TYPE = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"pattern", "minLength", "maxLength"},
    "integer": set(),
    "number": set(),
    "boolean": set(),
    "null": set(),
}
_ANYWHERE = {"type", "$defs", "definitions", "$schema", "$id"}
_ALONE = ("$ref", "anyOf", "enum", "const")
# A class that is not spelled out may hold a quote, which ends the string.
_UNSAFE_PATTERN = re.compile(r'\[\^|"|\\[DSWsdwpPxubB\\]|(?<!\\)\.')


def refuse_unsupported(schema: Schema) -> Schema:
    """Give back a narrowed schema that outlines_core enforces as a whole.

    Raises:
        ConstraintError: it has something that backend ignores or gets wrong; named in the message.
    """
    _check(schema, schema, (), set())
    return schema


def _check(schema: Schema, root: Schema, open_refs: tuple[str, ...], checked: set[str]) -> None:
    """Check one schema; `open_refs` lead to it, `checked` are references already followed."""
    if isinstance(schema, bool) or not isinstance(root, dict):
        raise _refusal("a schema without `type`")
    alone = next((keyword for keyword in _ALONE if keyword in schema), None)
    allowed = {alone} if alone else _BY_TYPE.get(_one_type(schema))
    if allowed is None:
        raise _refusal("a schema without one `type`")
    for keyword in schema.keys() - _ANYWHERE - allowed:
        raise _refusal(f"`{keyword}`" + (f" beside `{alone}`" if alone else ""))
    _check_pattern(schema)
    check_constants(schema)
    reference = schema.get("$ref")
    if reference is not None:
        if reference in open_refs:
            raise _refusal("a recursive `$ref`")
        if reference not in checked:
            _check(_follow(reference, root), root, (*open_refs, reference), checked)
            checked.add(reference)
    _check_parts(schema, root, open_refs, checked)


def _check_parts(
    schema: dict[str, Any], root: Schema, open_refs: tuple[str, ...], checked: set[str]
) -> None:
    for keyword in ("$defs", "definitions"):
        schema = {key: value for key, value in schema.items() if key != keyword}
    if schema.get("additionalProperties") is False:
        schema.pop("additionalProperties")
    elif "properties" in schema or schema.get("type") == "object":
        raise _refusal("an object without `additionalProperties: false`")
    if schema.get("type") == "array" and not {"items", "prefixItems"} & schema.keys():
        raise _refusal("an array without `items`")

    def check(part: Schema) -> Schema:
        _check(part, root, open_refs, checked)
        return part

    map_subschemas(schema, check)


def _check_pattern(schema: dict[str, Any]) -> None:
    pattern = schema.get("pattern")
    if pattern is None:
        return
    is_anchored = pattern.startswith("^") and pattern.endswith("$")
    if not is_anchored or _UNSAFE_PATTERN.search(pattern):
        raise _refusal(f"the `pattern` {json.dumps(pattern)}")
    if {"minLength", "maxLength"} & schema.keys():
        raise _refusal("`minLength` or `maxLength` beside `pattern`")


def _one_type(schema: dict[str, Any]) -> str:
    given = schema.get("type")
    return given if isinstance(given, str) else ""


def _follow(reference: str, root: dict[str, Any]) -> Schema:
    found = resolve(reference, root)
    if not isinstance(found, dict | bool):
        raise _refusal(f"the `$ref` {json.dumps(reference)}")
    return found


def _refusal(what: str) -> ConstraintError:
    return ConstraintError(
        f"the backend outlines_core cannot enforce {what}; choose the backend llguidance"
    )
