"""Narrowing of schemas: `format`, `oneOf`, bounds and constants, as pure functions."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.core_support import refuse_unsupported
from litellm_mlx.grammar.disjoint import are_disjoint
from litellm_mlx.grammar.formats import FORMATS
from litellm_mlx.grammar.json_schema import narrow_schema
from litellm_mlx.grammar.numbers import is_exact_constant


def _model(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def test_names_of_properties_are_not_keywords() -> None:
    schema = _model(format={"type": "string"}, title={"type": "string"}, oneOf={"const": 1})
    assert narrow_schema(schema) == schema


def test_data_is_left_as_it_is() -> None:
    schema = {"enum": [{"format": "date", "title": "x"}], "const": {"format": "date"}}
    assert narrow_schema(schema) == schema


def test_annotations_are_dropped() -> None:
    schema = {"title": "X", "description": "d", "default": 1, "examples": [], "readOnly": True}
    assert narrow_schema(schema) == {}


@pytest.mark.parametrize("name", ["binary", "password", "path", "my-own", "int64", 3])
def test_formats_that_are_annotations_are_dropped(name: Any) -> None:
    assert narrow_schema({"type": "string", "format": name}) == {"type": "string"}


def test_format_on_a_schema_without_strings_is_dropped() -> None:
    assert narrow_schema({"type": "integer", "format": "date"}) == {"type": "integer"}


def test_format_holds_beside_a_pattern_and_a_length() -> None:
    narrowed = narrow_schema({"type": "string", "format": "email", "pattern": "a", "maxLength": 9})
    assert narrowed == {
        "type": "string",
        "pattern": "a",
        "maxLength": 9,
        "allOf": [{"pattern": FORMATS["email"].pattern}],
    }


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("date", "0001-01-01 2024-02-29 2000-02-29 9999-12-31", "0000-01-01 2023-02-29 1900-02-29"),
        ("date", "2024-04-30 0004-02-29", "2024-02-30 2024-04-31 2024-13-01 2024-00-10 0000-02-29"),
        ("time", "00:00:00Z 23:59:59.123456+23:59", "23:59:60Z 24:00:00Z 12:00:00 12:00:00+24:00"),
        (
            "date-time",
            "2024-02-29T10:00:00Z",
            "2024-02-29T10:00:60Z 2024-02-29 2023-02-29T10:00:00Z",
        ),
        ("duration", "P1D PT1H30M P1Y2M3DT4H5M6S P2W", "P PT P1W2D P1Y1D PT1H1S P99999999D"),
        (
            "email",
            "a.b+c@example.com x@y.org",
            "a..b@x.de @x.de a@x a@b.test a@b.localhost a@b.local",
        ),
        ("email", "a@b.locals a@b.tes a@b.tests a@b.inv", "a@b.invalid a@b.arpa a@b.onion"),
        ("uri", "https://example.com/a?b#c urn:isbn:123 mailto:a@b.c", "https:// http://1.2.3 x"),
        (
            "uri",
            "postgres://host/db file:///tmp/x http://localhost:8080",
            "http:a https://-a.de ://a",
        ),
        ("ipv4", "0.0.0.0 255.255.255.255", "256.0.0.1 1.2.3 01.2.3.4"),
        ("ipv6", ":: ::1 1:: 1:2:3:4:5:6:7:8 1::8 ::ffff:1.2.3.4", "1:2 1::2::3 :1 12345::"),
        ("ipv4network", "10.0.0.0/8 1.2.3.4/32", "10.0.0.1/8"),
        ("uuid", "12345678-1234-1234-1234-123456789abc", "12345678-1234-1234-1234-123456789abg"),
        ("uuid4", "12345678-1234-4234-9234-123456789abc", "12345678-1234-1234-9234-123456789abc"),
        ("base64", "AAAA AA== AAA=", "A= AAA AB=="),
        ("json-pointer", "/a/~0b", "a /~2"),
        ("hostname", "a.b-c.de 1x", "-a a- a..b a_b"),
    ],
)
def test_formats_take_good_values_and_no_bad_ones(name: str, good: str, bad: str) -> None:
    pattern = re.compile(FORMATS[name].pattern)
    assert [v for v in good.split() if not pattern.search(v)] == []
    assert [v for v in bad.split() if pattern.search(v)] == []


def test_http_urls_are_told_from_other_uris_by_pydantics_length_limit() -> None:
    from pydantic import AnyUrl, HttpUrl, TypeAdapter

    http = narrow_schema(TypeAdapter(HttpUrl).json_schema())
    generic = narrow_schema(TypeAdapter(AnyUrl).json_schema())
    assert isinstance(http, dict) and isinstance(generic, dict)
    assert not re.search(http["pattern"], "urn:x:1") and re.search(generic["pattern"], "urn:x:1")


CAT = _model(kind={"const": "cat"}, lives={"type": "integer"})
DOG = _model(kind={"enum": ["dog", "wolf"]})
DOCUMENT = {"$defs": {"Cat": CAT, "Dog": DOG, "Loop": {"$ref": "#/$defs/Loop"}}}


@pytest.mark.parametrize(
    "branches",
    [
        [{"type": "string"}, {"type": "integer"}, {"type": "null"}],
        [{"const": 1}, {"const": True}, {"const": "1"}],
        [{"enum": [1, 2]}, {"enum": [3]}],
        [CAT, DOG],
        [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
        [{"allOf": [{"$ref": "#/$defs/Cat"}], "title": "x"}, DOG],
        [_model(a={}), _model(b={})],
        [{"type": "object", "required": ["a"], "properties": {"a": {"const": 1}}}, _model(a=DOG)],
        [_model(a=_model(tag={"const": 1})), _model(a=_model(tag={"const": 2}))],
    ],
)
def test_one_of_disjoint_branches_is_any_of(branches: list[Any]) -> None:
    narrowed = narrow_schema(
        {**DOCUMENT, "oneOf": branches, "discriminator": {"propertyName": "k"}}
    )
    assert isinstance(narrowed, dict)
    assert "oneOf" not in narrowed and "discriminator" not in narrowed
    assert len(narrowed["anyOf"]) == len(branches)


@pytest.mark.parametrize(
    "branches",
    [
        [],
        "x",
        [{"type": "integer"}, {"type": "number"}],
        [{"const": 1}, {"const": 1.0}],
        [{"const": [1]}, {"const": [1.0]}],
        [{"type": "string"}, {"maxLength": 3}],
        [{"required": ["a"]}, {"required": ["b"]}],
        [
            {"type": "object", "properties": {"k": {"const": 1}}},
            {"properties": {"k": {"const": 2}}},
        ],
        [{"$ref": "#/$defs/Loop"}, {"$ref": "#/$defs/Loop"}],
        [{"$ref": "http://x"}, {"$ref": "#/$defs/None"}],
        [True, {"type": "string"}],
    ],
)
def test_one_of_branches_that_may_overlap_stay(branches: Any) -> None:
    assert not are_disjoint(branches, DOCUMENT)


def test_one_of_beside_any_of_keeps_both() -> None:
    one_of = [{"type": "string"}, {"type": "null"}]
    narrowed = narrow_schema({"anyOf": [{"maxLength": 3}], "oneOf": one_of})
    assert narrowed == {"anyOf": [{"maxLength": 3}], "allOf": [{"anyOf": one_of}]}


def test_disjointness_of_a_hostile_one_of_is_given_up_soon() -> None:
    parts: Any = {"type": "object"}
    for _ in range(6):
        parts = {"type": "object", "allOf": [parts] * 8}
    assert not are_disjoint([parts] * 20, {})


def bounds_of(narrowed: Any) -> dict[str, float]:
    """The bounds; beside some of them stand numbers that the engine's range leaves out."""
    own = narrowed.get("anyOf", [narrowed])[0]
    return {k: v for k, v in own.items() if "inimum" in k or "aximum" in k}


@pytest.mark.parametrize(
    ("schema", "bounds"),
    [
        ({"type": "integer", "exclusiveMinimum": 0}, {"minimum": 1}),
        ({"type": "integer", "exclusiveMaximum": 2.5}, {"maximum": 2}),
        ({"type": "integer", "minimum": 0.5, "exclusiveMinimum": 3}, {"minimum": 4}),
        ({"type": "integer", "maximum": 2**64}, {"maximum": 10**18}),
        ({"type": "integer", "minimum": 2**53 + 1}, {"minimum": 9007199254741000}),
        ({"type": "number", "exclusiveMinimum": 0}, {"minimum": 1e-20}),
        ({"type": "number", "exclusiveMaximum": 1}, {"maximum": 0.99999999999999}),
        ({"type": "number", "minimum": 1, "exclusiveMinimum": True}, {"minimum": 1.00000000000001}),
        ({"type": "number", "maximum": 1, "exclusiveMaximum": False}, {"maximum": 1}),
        ({"type": "number", "minimum": -1.5, "maximum": 2.25}, {"minimum": -1.5, "maximum": 2.25}),
        ({"multipleOf": 5}, {"minimum": -(10**15), "maximum": 10**15}),
    ],
)
def test_bounds_become_inclusive_and_readable(schema: Any, bounds: dict[str, float]) -> None:
    narrowed = narrow_schema(schema)
    assert isinstance(narrowed, dict)
    assert bounds_of(narrowed) == bounds


def test_bounds_move_inwards_only_and_stay_strict_as_floats() -> None:
    for bound in (1, 0.1, 99.99, 1e15, -3.25, 123456.789, 0.30000000000000004, 1e-9, -1e-7, 2**60):
        low = bounds_of(narrow_schema({"type": "number", "exclusiveMinimum": bound}))
        high = bounds_of(narrow_schema({"type": "number", "exclusiveMaximum": bound}))
        assert float(high["maximum"]) < bound < float(low["minimum"])
        assert (
            Decimal(repr(low["minimum"])) - Decimal(repr(bound))
            < Decimal("1e-20") + abs(Decimal(bound)) / 10**10
        )


@pytest.mark.parametrize(
    "value", [2**53 + 1, -(2**63), 0.12345678901234567, 1e300, [{"a": 2**63}], "\x01"]
)
def test_constants_that_the_engine_would_misspell_are_known(value: Any) -> None:
    assert not is_exact_constant(value)
    assert is_exact_constant(2**53) and is_exact_constant([{"\x01": "a\n"}, 1.5, None])
    with pytest.raises(ConstraintError, match="`const` holds"):
        refuse_unsupported({"const": value})


def test_pydantics_decimal_pattern_loses_its_look_ahead() -> None:
    old = {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}
    narrowed = narrow_schema(old)
    assert isinstance(narrowed, dict)
    for text in ("1", "-1.5", ".5", "5.", "+007.10", "", ".", "-", "1.2.3", "x", "+.", "00"):
        assert bool(re.search(old["pattern"], text)) == bool(re.search(narrowed["pattern"], text))


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        ({}, "type"),
        ({"type": ["string", "null"]}, "one `type`"),
        ({"type": "integer", "minimum": 0}, "`minimum`"),
        ({"type": "array", "items": {"type": "null"}, "uniqueItems": True}, "`uniqueItems`"),
        ({"type": "array"}, "without `items`"),
        ({"type": "object", "properties": {}}, "additionalProperties: false"),
        ({"type": "string", "pattern": "a"}, "`pattern`"),
        ({"type": "string", "pattern": "^.*$"}, "`pattern`"),
        ({"type": "string", "pattern": '^[^a]"$'}, "`pattern`"),
        ({"anyOf": [{"type": "null"}], "type": "string", "maxLength": 1}, "`maxLength` beside"),
        ({"$ref": "#/$defs/a", "$defs": {"a": _model(x={"$ref": "#/$defs/a"})}}, "recursive"),
        ({"$ref": "#/$defs/b"}, "#/.defs/b"),
        ({"allOf": [{"type": "string"}]}, "type"),
    ],
)
def test_outlines_core_refuses_by_name_what_it_would_get_wrong(schema: Any, names: str) -> None:
    with pytest.raises(ConstraintError, match=names):
        refuse_unsupported(narrow_schema(schema))
