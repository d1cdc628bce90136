"""JSON schemas inside a caller's Lark grammar (`%json {…}`), spelled as whole schemas are.

llguidance reads them by itself there, with its own ideas of regexes, formats and bounds; see
`patterns` and `json_schema` for what is wrong with those. No check follows, so what no spelling
settles is refused.
"""

from __future__ import annotations

import json
import re

from litellm_mlx.grammar.drafts import subschemas
from litellm_mlx.grammar.json_schema import DECIMAL, Schema, narrow_schema
from litellm_mlx.grammar.patterns import name_pattern, value_pattern
from litellm_mlx.grammar.plain import with_plain_patterns

_EMBEDDED = re.compile(r"%json\s*(?=\{)")
_DECODER = json.JSONDecoder()


def with_narrow_schemas(lark: str) -> str:
    """Copy a Lark grammar with the schemas in it narrowed to what the engine holds exactly.

    Raises:
        ValueError: engines differ about a regex in one of them.
    """
    written: list[str] = []
    at = 0
    for found in _EMBEDDED.finditer(lark):
        try:
            schema, end = _DECODER.raw_decode(lark, found.end())
        except ValueError:  # which llguidance says in its own words
            continue
        written += [lark[at : found.end()], json.dumps(_narrowed(schema), ensure_ascii=False)]
        at = end
    return "".join([*written, lark[at:]])


def _narrowed(schema: Schema) -> Schema:
    plain = with_plain_patterns(schema)
    for _, sub in subschemas(plain):
        pattern = sub.get("pattern")
        names = sub.get("patternProperties", {})
        is_odd = isinstance(pattern, str) and pattern != DECIMAL and value_pattern(pattern) is None
        if is_odd or any(name_pattern(name) is None for name in names):
            raise ValueError("a regex inside of %json is read differently by different engines")
    return narrow_schema(plain)
