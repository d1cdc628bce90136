"""Spells a caller's schema so that the grammar engine and the validator can both read it.

Owns what only looks wrong to them: regexes that ECMA-262 takes and they do not (see `patterns`).
The meaning stays; what the drafts say about references is `drafts`.
"""

from __future__ import annotations

from typing import Any

from litellm_mlx.grammar.json_schema import Schema, map_subschemas
from litellm_mlx.grammar.patterns import plain_pattern

PATTERN_KEYWORDS = frozenset({"pattern", "patternProperties"})


def with_plain_patterns(schema: Schema) -> Schema:
    """Copy a schema with its regexes as every engine reads them alike."""
    if isinstance(schema, bool):
        return schema
    kept = map_subschemas(schema, with_plain_patterns)
    if isinstance(kept.get("pattern"), str):
        kept["pattern"] = plain_pattern(kept["pattern"])
    named = kept.get("patternProperties")
    if isinstance(named, dict):
        kept["patternProperties"] = _plain_names(named)
    return kept


def _plain_names(named: dict[str, Any]) -> dict[str, Any]:
    spelled = {plain_pattern(pattern): schema for pattern, schema in named.items()}
    return spelled if len(spelled) == len(named) else named
