"""The differential search's material: small schemas of every keyword, and instances near them.

The search is `differential`. All of it follows from a seed.
"""

from __future__ import annotations

import datetime
import enum
import ipaddress
import itertools
import json
import random
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    AnyUrl,
    Base64Bytes,
    Base64UrlBytes,
    BaseModel,
    ConfigDict,
    EmailStr,
    Field,
    HttpUrl,
    IPvAnyAddress,
    IPvAnyInterface,
    IPvAnyNetwork,
    TypeAdapter,
)

from litellm_mlx.grammar.formats import FORMATS

DRAFT_7 = "http://json-schema.org/draft-07/schema#"
DRAFT_4 = "http://json-schema.org/draft-04/schema#"

NUMBERS: list[dict[str, Any]] = [
    *({"minimum": n} for n in (0, -3, 2.5, 0.1, 100)),
    *({"maximum": n} for n in (0, 7, -2.5, 0.95, 1e3)),
    *({"exclusiveMinimum": n} for n in (0, 1.5, -10)),
    *({"exclusiveMaximum": n} for n in (1, 0.5, 12.75)),
    *({"multipleOf": n} for n in (1, 3, 0.5, 0.01, 10)),
]
STRINGS: list[dict[str, Any]] = [
    *({"minLength": n} for n in (0, 1, 3)),
    *({"maxLength": n} for n in (0, 2, 5)),
    *({"pattern": p} for p in ("^a", "b$", '^[^"]*$', r"^[^\\/]+$", r"\d{2}", "", "a|b", "^.$")),
    *({"format": f} for f in ("date", "time", "date-time", "uuid", "email", "ipv4", "unknown")),
]
ARRAYS: list[dict[str, Any]] = [
    *({"minItems": n} for n in (0, 1, 2)),
    *({"maxItems": n} for n in (0, 1, 3)),
    {"items": {"type": "integer"}},
    {"items": False},
    {"prefixItems": [{"type": "string"}, {"type": "integer"}]},
    {"prefixItems": [{"const": 1}], "items": False},
    {"prefixItems": [{"const": 1}], "unevaluatedItems": {"type": "string"}},
    {"contains": {"type": "string"}},
    {"contains": {"const": 1}, "minContains": 2},
    {"contains": {"const": 1}, "minContains": 0, "maxContains": 1},
    {"uniqueItems": True},
    {"unevaluatedItems": False},
]
OBJECTS: list[dict[str, Any]] = [
    {"properties": {"a": {"type": "integer"}, 'b"\\': {"type": "string"}}},
    {"properties": {"a": False, "b": True}},
    {"required": ["a"]},
    {"required": ["z", 'b"\\']},
    {"additionalProperties": False},
    {"additionalProperties": {"type": "integer"}},
    {"patternProperties": {"^a": {"type": "integer"}}},
    {"patternProperties": {'^[^"]$': {"type": "string"}, "b": {"type": "string"}}},
    {"propertyNames": {"pattern": r"^[^\\/]*$"}},
    {"propertyNames": {"maxLength": 1}},
    {"propertyNames": {"enum": ["a", "b"]}},
    {"minProperties": 1},
    {"minProperties": 2},
    {"maxProperties": 1},
    {"dependentRequired": {"a": ["b"]}},
    {"dependentSchemas": {"a": {"properties": {"b": {"type": "string"}}}}},
    {"unevaluatedProperties": False},
]
ANY: list[dict[str, Any]] = [
    *({"type": t} for t in ("string", "integer", "number", "boolean", "null", "array", "object")),
    {"type": ["string", "null"]},
    {"enum": [1, "a", None, [1], {"a": 1}, 'q"\\/\n']},
    {"const": "a"},
    {"const": 1.0},
    {"const": {"a": [1, '"']}},
    {"allOf": [{"type": "string"}, {"maxLength": 2}]},
    {"anyOf": [{"type": "integer"}, {"type": "string", "minLength": 2}]},
    {"oneOf": [{"type": "integer"}, {"minimum": 2}]},
    {"oneOf": [{"type": "string"}, {"type": "null"}]},
    {"not": {"type": "string"}},
    {"not": {"required": ["a"]}},
    {"if": {"type": "string"}, "then": {"maxLength": 1}, "else": {"type": "integer"}},
    {"$ref": "#/$defs/x", "$defs": {"x": {"type": ["integer", "array", "object"]}}},
    {"$ref": "#/$defs/List<int, é>", "$defs": {"List<int, é>": {"minItems": 1, "minimum": 1}}},
    {"$ref": "#/$defs/r", "$defs": {"r": {"type": "array", "items": {"$ref": "#/$defs/r"}}}},
    {"$id": "https://example.com/s", "$ref": "t", "$defs": {"t": {"$id": "t", "minLength": 1}}},
    {"$ref": "#x", "$defs": {"x": {"$anchor": "x", "type": ["string", "number"]}}},
    {"$dynamicAnchor": "n", "properties": {"a": {"$dynamicRef": "#n"}}, "type": "object"},
    {"title": "t", "description": "d", "default": 1, "examples": [1], "deprecated": True},
    {"contentEncoding": "base64", "contentMediaType": "text/plain"},
    {"$schema": DRAFT_7, "items": [{"type": "integer"}], "additionalItems": False},
    {"$schema": DRAFT_4, "minimum": 1, "exclusiveMinimum": True},
]  # fmt: skip
FRAGMENTS = [*NUMBERS, *STRINGS, *ARRAYS, *OBJECTS, *ANY]

CLASSES = [
    r"[^\"]", r"[^\\]", r"[^\\/]", r"[^\n\"]", r"[^\\/:*?\"<>|]", r"[\x00-\x1f]", r"[^\x00-\x1f]",
    r"[^\x00-\x1f\"\\]", r"[^\s\"]", r"[^a]", r"[^/]", r"[\"]", r"[\\]", r"[\"\\/]", r"[a-z\"]",
    r"[ -~]", r"[^ -~]", r"\S", r"\W", r"\D", r".", r"[^,]", r"[\u0000-\uffff]", r"[é-ü\\]",
    r"[!-#]", r"[Z-^]", r"\s", r"[\t\n]", r"[^\u2028]", r"(\"|\\)", r"[^'\"`]", r"\w",
]  # fmt: skip
FORMS = ["^{}$", "^{}*$", "^{}+$", "^{}{{2}}$", "^a{}", "{}$", "{}", "^x?{}{{1,2}}$", "^({}|ab)$"]


def patterned() -> Iterator[dict[str, Any]]:
    """Each class in each form, of a value, of names, and of names beside a listed one."""
    for cls, form in itertools.product(CLASSES, FORMS):
        pattern = form.format(cls)
        yield {"type": "string", "pattern": pattern}
        names = {pattern: {"type": "integer"}}
        yield {"type": "object", "patternProperties": names, "additionalProperties": False}
        yield {"type": "object", "propertyNames": {"pattern": pattern}, "maxProperties": 2}
        yield {"properties": {"a": {"type": "string"}}, "patternProperties": names}


def bounded() -> Iterator[dict[str, Any]]:
    """Numbers between two bounds, of each kind."""
    values = (-100, -2.5, -1, 0, 0.05, 0.95, 1, 9.99, 12.75, 100, 1e6)
    lows, highs = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
    for low, high in itertools.combinations(values, 2):
        for a, b, kind in itertools.product(lows, highs, ("number", "integer")):
            yield {"type": kind, a: low, b: high}
        yield {"type": "number", "minimum": low, "maximum": high, "multipleOf": 0.5}


# What Pydantic has for a format.
PYDANTICS: dict[str, Any] = {
    "date": datetime.date,
    "time": datetime.time,
    "date-time": datetime.datetime,
    "duration": datetime.timedelta,
    "uuid": uuid.UUID,
    "email": EmailStr,
    "uri": AnyUrl,
    "http-url": HttpUrl,
    **{f"ipv{v}": getattr(ipaddress, f"IPv{v}Address") for v in (4, 6)},
    **{f"ipv{v}network": getattr(ipaddress, f"IPv{v}Network") for v in (4, 6)},
    **{f"ipv{v}interface": getattr(ipaddress, f"IPv{v}Interface") for v in (4, 6)},
    "ipvanyaddress": IPvAnyAddress,
    "ipvanynetwork": IPvAnyNetwork,
    "ipvanyinterface": IPvAnyInterface,
    "base64": Base64Bytes,
    "base64url": Base64UrlBytes,
}


def formatted() -> Iterator[tuple[dict[str, Any], TypeAdapter[Any] | None]]:
    """Every format, alone and beside a length and a pattern, with Pydantic's type of it."""
    for name in FORMATS:
        adapter = TypeAdapter(PYDANTICS[name]) if name in PYDANTICS else None
        yield {"type": "string", "format": name}, adapter
        yield {"type": "string", "format": name, "maxLength": 12}, adapter
        yield {"format": name, "pattern": "1"}, None


class Leaf(BaseModel):
    """A model whose names and texts are awkward."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(pattern=r'^[^"\\]{1,4}$', alias='na"me')]
    size: Annotated[int, Field(ge=0, lt=10)] = 1


class Tree(BaseModel):
    """A model that holds itself."""

    kind: Literal["tree", 'a "tree"'] = "tree"
    leaves: Annotated[list[Leaf], Field(max_length=2)] = []
    left: Tree | None = None


class Cat(BaseModel):
    """One of two that `pet` tells apart."""

    pet: Literal["cat"]
    lives: Annotated[int, Field(gt=0, le=9)]


class Dog(BaseModel):
    """The other one."""

    pet: Literal["dog"]
    weight: Annotated[float, Field(gt=0.5, le=99.5)] | None


class Mood(enum.Enum):
    """Values of two kinds."""

    GOOD = "go/od"
    BAD = 0


# Types that Pydantic's own schema says all of; of bounded decimals and of dicts with a pattern for
# their keys it does not.
MODELS: list[Any] = [
    Leaf,
    Tree,
    Mood,
    Cat | Dog,
    Annotated[Cat | Dog, Field(discriminator="pet")],
    dict[Literal["a", "b"], float],
    dict[Mood, int] | None,
    tuple[int, str],
    tuple[int, ...],
    set[Literal[1, 2, 3]],
    Annotated[list[int], Field(min_length=1, max_length=2)],
    *(Annotated[int, Field(**{bound: 3})] for bound in ("ge", "gt", "le", "lt", "multiple_of")),
    *(Annotated[float, Field(**{bound: 0.95})] for bound in ("ge", "gt", "le", "lt")),
    *(Annotated[float, Field(**{bound: -2})] for bound in ("ge", "gt", "le", "lt")),
    Annotated[float, Field(gt=0, lt=1)],
    Annotated[int, Field(ge=-5, le=250)],
    Annotated[str, Field(min_length=1, max_length=3)],
    Annotated[str, Field(pattern='^[^\n"]+$')],
    *PYDANTICS.values(),
    str | int | None,
    bool | list[bool],
]


def combined() -> Iterator[dict[str, Any]]:
    """Every fragment alone, and every two: beside each other, or in an `allOf`."""
    yield from FRAGMENTS
    for one, other in itertools.combinations(FRAGMENTS, 2):
        if one.keys().isdisjoint(other):
            yield {**one, **other}
        elif not {"$schema", "$id"} & (one.keys() | other.keys()):  # these stand at a root
            yield {"allOf": [one, other]}


def nested(rng: random.Random) -> Iterator[dict[str, Any]]:
    """Fragments inside others, without end; none that only means something at the root."""
    plain = [part for part in FRAGMENTS if not any(key.startswith("$") for key in part)]
    while True:
        one, two, three = rng.sample(plain, 3)
        yield rng.choice(
            [
                {"type": "object", "properties": {"a": one, 'b"\\': two}, "required": ["a"]},
                {"type": "array", "items": {**one, **two}, "maxItems": 3},
                {"anyOf": [one, two], **three},
                {"oneOf": [one, {**two, **three}]},
                {"type": "object", "additionalProperties": {**one, **two}, "maxProperties": 2},
                {"if": one, "then": two, "else": three},
                {"type": "object", "patternProperties": {"^a": one, "b$": two}},
                {"not": {**one, **two}, **three},
                {"prefixItems": [one, two], "items": three},
            ]
        )


# --- instances ----------------------------------------------------------------------------------

SPECIAL = ['"', "\\", "/", "\n", "\t", "\x01", "\x7f", "a", "ab", "b", "é", "😀", " ", "1", "12"]
SPECIAL += ["", "'", ":", "<", "|", "\u2028", "`", "{", ",", "x", "A", "٣", "\ufeff", "\x00", "_"]
WORDS = ["2024-02-29", "2023-02-29", "23:59:60Z", "12:00:00", "12:00:00Z", "a@b.co", "1.2.3.4"]
WORDS += ["2024-01-01T00:00:00Z", "https://a.b/c?d#e", "P1D", "::1", "a.b", "#/a", "256.1.1.1"]
WORDS += ["123e4567-e89b-12d3-a456-426614174000", "/a~0", "{a}", "^a$", "a/b", "aGk="]
SCALARS: list[Any] = [None, True, False, 0, 1, -1, 2, 7, 1.0, 0.5, -2.5, 0.9, 12.7, 1e-7, 1e20, 100]
VALUES: list[Any] = [
    *SCALARS,
    *SPECIAL,
    *WORDS,
    *([], [1], [1, 1], [1, "a"], ["a", 1], [1, 2, 3], [[1]], ["a"], [1, True], [1.0, 1], [{}]),
    *({}, {"a": 1}, {"b": 1}, {"a": "x"}, {"a": 1, "b": "x"}, {"b": "x", "a": 1}, {"z": None}),
    *({'b"\\': "s", "a": 1}, {'b"\\': 1, "z": 0}, {"aa": 1, "ab": 2}, {"a": {"a": 1}}, {"": 0}),
]


def texts_of(schema: Any, accepted: Iterable[str], rng: random.Random, number: int) -> list[str]:
    """Instances as JSON texts: usual ones, the schema's own, and changes of accepted ones."""
    own = list(_own_values(schema))
    bases = [*own, *map(json.loads, accepted)]
    values = [*bases, *(_mutant(rng.choice(bases or VALUES), rng) for _ in range(number))]
    values += rng.sample(VALUES, min(len(VALUES), number))
    if '"string"' in json.dumps(schema) or "pattern" in json.dumps(schema):
        values += ["".join(rng.choices(SPECIAL, k=rng.randint(1, 3))) for _ in range(number // 2)]
    if "Properties" in json.dumps(schema) or "propertyNames" in json.dumps(schema):
        names = ["".join(rng.choices(SPECIAL, k=rng.randint(1, 2))) for _ in range(number // 2)]
        values += [{name: rng.choice((1, "x"))} for name in names]
    texts = [json.dumps(value, ensure_ascii=False) for value in values]
    for text in rng.sample(texts, min(len(texts), number // 6)):
        texts.append(_respelled(text, rng))
    return list(dict.fromkeys(texts))


def _own_values(schema: Any) -> Iterator[Any]:
    """Values near those that a schema names."""
    if isinstance(schema, bool):
        return
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in ("const", "enum", "examples"):
                yield from value if isinstance(value, list) and key != "const" else [value]
            elif isinstance(value, int | float) and not isinstance(value, bool):
                yield from (value, value + 1, value - 1, value + 0.5, value - 0.01, value * 3)
                yield from ("a" * max(int(value) + d, 0) for d in (0, 1) if value < 20)
                yield from ([1] * max(int(value) + d, 0) for d in (0, 1) if value < 20)
            elif key == "properties" and isinstance(value, dict):
                yield {name: _example(sub) for name, sub in value.items()}
                yield {name: "x" for name in value}
            else:
                yield from _own_values(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _own_values(item)


def _example(schema: Any) -> Any:
    return next(iter(_own_values(schema)), 1)


def _mutant(value: Any, rng: random.Random) -> Any:
    """A value with one change."""
    if isinstance(value, str):
        place = rng.randint(0, len(value))
        cut = rng.randint(0, 1)
        return value[:place] + rng.choice(SPECIAL) + value[place + cut :]
    if isinstance(value, bool) or value is None:
        return rng.choice(SCALARS)
    if isinstance(value, int | float):
        return rng.choice((value + 1, -value, value * 10, value + 0.1, str(value), value // 2))
    if isinstance(value, list):
        return _changed_list(value, rng)
    items = list(value.items())
    if items and rng.random() < 0.4:
        name, inner = items.pop(rng.randrange(len(items)))
        is_kept = rng.random() < 0.7
        items.append((name, _mutant(inner, rng)) if is_kept else (_mutant(name, rng), inner))
    else:
        more = rng.choice([*SPECIAL, "a", "b", "z"]), rng.choice(VALUES)
        items.insert(rng.randint(0, len(items)), more)
    return dict(items)


def _changed_list(items: list[Any], rng: random.Random) -> list[Any]:
    place = rng.randint(0, len(items))
    before, after = items[:place], items[place:]
    if rng.random() < 0.5:
        return [*before, rng.choice(VALUES) if rng.random() < 0.6 else (items or [1])[0], *after]
    return [*before, *(_mutant(item, rng) for item in after[:1]), *after[1:]]


def _respelled(text: str, rng: random.Random) -> str:
    """The same value, or nearly, in other characters."""
    respell: list[Callable[[], str]] = [
        lambda: json.dumps(json.loads(text)),
        lambda: json.dumps(json.loads(text), separators=(",", ":")),
        lambda: json.dumps(json.loads(text), indent=1),
        lambda: text.replace("/", r"\/"),
        lambda: text.replace("a", r"\u0061"),
        lambda: re.sub(r"\b(\d+)\b", r"\1.0", text),
        lambda: re.sub(r"\b(\d+)\b", r"\1e0", text),
        lambda: text + " ",
        lambda: text[:-1],
        lambda: text.replace("1", "01"),
    ]
    return rng.choice(respell)()
