"""Regexes of names that match no more names than the schema lists: these names are listed instead.

Owns that rewriting. llguidance 1.9.1 takes the listed names out of what a regex of
`patternProperties` matches, and does not see where nothing is left: it writes a comma and finds no
name to go on with (its issue 265). That ends with a release in which `{"a": 1` can only be closed
where "a" is listed and `^a$` is the only other name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cache
from typing import Any

from litellm_mlx.grammar.drafts import subschemas
from litellm_mlx.grammar.json_schema import Schema, map_subschemas
from litellm_mlx.grammar.matcher import leaves_a_name
from litellm_mlx.grammar.patterns import name_pattern
from litellm_mlx.grammar.regex_example import regex_example


def with_used_names(schema: Schema) -> Schema:
    """Copy a schema in which a regex that has no name beyond those listed anywhere is these names.

    Names of other objects count: the engine merges what `allOf` and `$ref` bring together. The
    meaning stays, but names that are listed have an order.

    Args:
        schema: in the form that `drafts.settle` gives.

    Cost: 0.1 ms for each regex, 0.5 ms where a name beyond those listed is not easily found.
    """
    listed: dict[str, None] = {}
    for _, sub in subschemas(schema):
        if "/patternProperties/" in str(sub.get("$ref")):
            return schema  # what a reference leads to stays in its place
        listed |= dict.fromkeys([*sub.get("properties", ()), *sub.get("required", ())])
    names_of = cache(lambda pattern: _names_of(pattern, listed))
    return _with_used_names(schema, names_of)


def _with_used_names(schema: Schema, names_of: Callable[[str], list[str] | None]) -> Schema:
    if isinstance(schema, bool):
        return schema
    kept = map_subschemas(schema, lambda sub: _with_used_names(sub, names_of))
    for pattern, named in kept.get("patternProperties", {}).items():
        names = names_of(pattern)
        if names is not None:
            _list_names(kept, pattern, names, named)
    return kept


def _list_names(schema: dict[str, Any], pattern: str, names: list[str], named: Schema) -> None:
    """Write the names that a regex of `patternProperties` matches in its place."""
    others = schema["patternProperties"]
    schema["patternProperties"] = {key: value for key, value in others.items() if key != pattern}
    if names:
        properties = dict(schema.get("properties", {}))
        schema["properties"] = properties
        for name in names:
            properties[name] = _both(properties.get(name, True), named)


def _names_of(pattern: str, listed: Collection[str]) -> list[str] | None:
    """All names that a regex matches, where they are listed; else None."""
    from jsonschema_rs import validator_for

    try:
        matches = validator_for({"pattern": pattern}).is_valid
    except ValueError:
        return None  # a regex that none can read is for `relax` to drop
    example = regex_example(pattern) or ""
    if any(
        name not in listed and name.isascii() and name.isprintable() and matches(name)
        for name in (example, f"{example}0", f"0{example}")
    ):
        return None  # which spares most regexes the engine
    names = [name for name in listed if matches(name)]
    return None if leaves_a_name(name_pattern(pattern) or pattern, names) else names


def _both(first: Any, second: Any) -> Any:
    """A schema of what satisfies two."""
    if first is True or first == second:
        return second
    return {"allOf": [first, second]}
