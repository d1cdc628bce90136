"""What we do to a JSON schema before a backend sees it; every step only narrows what is valid.

Owns the walk over subschemas (a property named "format" is not a keyword), `format`, and `oneOf`
with branches that cannot both hold. Compiling is `compiler`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from litellm_mlx.grammar.disjoint import are_disjoint
from litellm_mlx.grammar.formats import FORMATS
from litellm_mlx.grammar.numbers import BOUNDS, narrow_bounds, short_decimals
from litellm_mlx.grammar.patterns import name_pattern, value_pattern

Schema = dict[str, Any] | bool
_SCHEMA_TYPES = (dict, bool)  # a test against the union takes twice as long

# Keywords by what they hold: one schema, a list of schemas, schemas under the caller's names.
SINGLE_SCHEMAS = frozenset(
    "additionalItems additionalProperties contains contentSchema else if items not propertyNames "
    "then unevaluatedItems unevaluatedProperties".split()
)
LISTED_SCHEMAS = frozenset({"allOf", "anyOf", "items", "oneOf", "prefixItems"})
NAMED_SCHEMAS = frozenset(
    "$defs definitions dependencies dependentSchemas patternProperties properties".split()
)
_HOLDERS = SINGLE_SCHEMAS | LISTED_SCHEMAS | NAMED_SCHEMAS

# Keywords that say nothing about validity. `nullable` and `discriminator` are OpenAPI's.
ANNOTATIONS = frozenset(
    "$comment contentEncoding contentMediaType contentSchema default deprecated description "
    "discriminator example examples externalDocs nullable readOnly title writeOnly xml".split()
)

# Keywords of drafts 4 to 2020-12 that say something about validity, or about where it is said.
KEYWORDS = (
    SINGLE_SCHEMAS
    | LISTED_SCHEMAS
    | NAMED_SCHEMAS
    | frozenset(
        "$anchor $dynamicAnchor $dynamicRef $id $recursiveAnchor $recursiveRef $ref $schema const "
        "dependentRequired enum exclusiveMaximum exclusiveMinimum format id maxContains maximum "
        "maxItems maxLength maxProperties minContains minimum minItems minLength minProperties "
        "multipleOf pattern required type uniqueItems".split()
    )
) - ANNOTATIONS

# What `narrow_schema` looks for.
_NARROWED = (
    ANNOTATIONS | BOUNDS | {"uniqueItems", "pattern", "patternProperties", "format", "oneOf"}
)

# Pydantic up to 2.12 writes a look-ahead for Decimal, which the engines do not have.
DECIMAL = r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"
_DECIMAL_WITHOUT_LOOKAHEAD = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)$"

# The length limit that Pydantic gives HttpUrl and no generic URL.
_HTTP_URL_MAX_LENGTH = 2083


def map_subschemas(schema: dict[str, Any], change: Callable[[Schema], Schema]) -> dict[str, Any]:
    """Copy a schema with `change` applied to its direct subschemas; data in it stays as it is."""
    mapped = dict(schema)
    # Every schema is walked several times before its first mask: most hold no others.
    if _HOLDERS.isdisjoint(schema):
        return mapped
    for key in schema.keys() & _HOLDERS:
        value = schema[key]
        if key in NAMED_SCHEMAS and isinstance(value, dict):
            mapped[key] = {n: change(v) if _is_schema(v) else v for n, v in value.items()}
        elif key in LISTED_SCHEMAS and isinstance(value, list):
            mapped[key] = [change(item) if _is_schema(item) else item for item in value]
        elif isinstance(value, dict) or (isinstance(value, bool) and key in SINGLE_SCHEMAS):
            mapped[key] = change(value)
    return mapped


def map_with_paths(
    schema: dict[str, Any], change: Callable[[Schema, str], Schema]
) -> dict[str, Any]:
    """As `map_subschemas`; `change` also gets the JSON pointer from `schema` to the subschema."""
    mapped = dict(schema)
    for key, value in schema.items():
        if key in _HOLDERS:
            mapped[key] = _map_value(key, value, change)
    return mapped


def _map_value(key: str, value: Any, change: Callable[[Schema, str], Schema]) -> Any:
    if isinstance(value, dict):
        if key not in NAMED_SCHEMAS:
            return change(value, f"/{key}")
        return {
            name: change(sub, f"/{key}/{escaped(name)}") if _is_schema(sub) else sub
            for name, sub in value.items()
        }
    if isinstance(value, list) and key in LISTED_SCHEMAS:
        return [
            change(sub, f"/{key}/{place}") if _is_schema(sub) else sub
            for place, sub in enumerate(value)
        ]
    return change(value, f"/{key}") if isinstance(value, bool) and key in SINGLE_SCHEMAS else value


def escaped(name: str) -> str:
    """Write a name as one step of a JSON pointer."""
    if "~" in name or "/" in name:
        return name.replace("~", "~0").replace("/", "~1")
    return name


def _is_schema(value: object) -> bool:
    return isinstance(value, _SCHEMA_TYPES)


def narrow_schema(schema: Schema) -> Schema:
    """Rewrite a schema so that what it accepts is enforceable and parses.

    A known `format` becomes a pattern (see `formats`); others, as "password" or "binary", are
    annotations and are dropped, as JSON Schema says. `oneOf` becomes `anyOf` where no value can
    satisfy two branches, and stays for the backend to judge or refuse where that is not proved.
    Bounds of numbers become inclusive (see `numbers`); their digits are bounded by `number_limit`.
    Regexes are spelled for the engine (see `patterns`); those that cannot be are `relax`'s to drop.
    """
    return _narrow(schema, schema)


def is_narrow(names: Collection[str]) -> bool:
    """Whether `narrow_schema` leaves schemas of these keywords, and any others, as they are."""
    return _NARROWED.isdisjoint(names)


def _narrow(schema: Schema, root: Schema) -> Schema:
    if isinstance(schema, bool):
        return schema
    if not ANNOTATIONS.isdisjoint(schema):
        schema = {key: value for key, value in schema.items() if key not in ANNOTATIONS}
    kept = map_subschemas(schema, lambda sub: _narrow(sub, root))
    if kept.get("uniqueItems") is False:
        del kept["uniqueItems"]
    if "pattern" in kept:
        kept["pattern"] = _engine_pattern(kept["pattern"])
    if "patternProperties" in kept:
        is_closed = kept.get("additionalProperties") is False
        kept["patternProperties"] = _spelled_names(kept["patternProperties"], is_closed)
    if not BOUNDS.isdisjoint(kept):
        narrow_bounds(kept)
        _complete_range(kept)
    if "format" in kept:
        _replace_format(kept)
    if "oneOf" in kept and are_disjoint(kept.get("oneOf"), root):
        _add(kept, "anyOf", kept.pop("oneOf"))
    return kept


def _engine_pattern(pattern: str) -> str:
    if pattern == DECIMAL:
        return _DECIMAL_WITHOUT_LOOKAHEAD
    return value_pattern(pattern) or pattern


def _spelled_names(named: dict[str, Any], is_closed: bool) -> dict[str, Any]:
    """Spell the regexes of `patternProperties` for the engine.

    In a closed object a name that they leave out is no name, in an open one it is another's. Of two
    that become one, the engine gets to see both, and says that they overlap.
    """
    spell = value_pattern if is_closed else name_pattern
    spelled: dict[str, Any] = {}
    for pattern, schema in named.items():
        name = spell(pattern) or pattern
        spelled[pattern if name in spelled else name] = schema
    return spelled


def _complete_range(schema: dict[str, Any]) -> None:
    """Put the numbers beside a range of decimals that the engine leaves out of it."""
    types = schema.get("type", "number")
    if (
        "number" not in ([types] if types == "number" else types)
        or {"const", "enum"} & schema.keys()
    ):
        return
    left_out = short_decimals(schema)
    if left_out:
        bounds = {key: schema.pop(key) for key in BOUNDS & schema.keys()}
        own = {"type": types, **bounds} if "type" in schema else bounds
        _add(schema, "anyOf", [own, *left_out])


def _replace_format(schema: dict[str, Any]) -> None:
    name = schema.pop("format", None)
    types = schema.get("type", "string")
    if not isinstance(name, str) or "string" not in ([types] if types == "string" else types):
        return
    if name == "uri" and schema.get("maxLength") == _HTTP_URL_MAX_LENGTH:
        name = "http-url"
    if name not in FORMATS:
        return
    chosen = FORMATS[name]
    _add(schema, "pattern", chosen.pattern)
    if chosen.max_length is not None:
        given = schema.get("maxLength", chosen.max_length)
        schema["maxLength"] = min(given, chosen.max_length)


def _add(schema: dict[str, Any], keyword: str, value: Any) -> None:
    """Set a keyword, or ask for both values of it where it is there already."""
    if keyword not in schema:
        schema[keyword] = value
    else:
        schema["allOf"] = [*schema.get("allOf", []), {keyword: value}]
