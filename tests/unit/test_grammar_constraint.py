"""What callers may ask for, and how it becomes one canonical value."""

from __future__ import annotations

import json
from typing import Any

import pytest

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.constraint import (
    JSON_OBJECT,
    choice_constraint,
    grammar_constraint,
    json_schema_constraint,
    regex_constraint,
)


def test_equal_schemas_are_equal_constraints_and_property_order_counts() -> None:
    one = json_schema_constraint({"properties": {"a": {}, "b": {}}})
    same = json_schema_constraint({"properties": {"a": {}, "b": {}}})
    other = json_schema_constraint({"properties": {"b": {}, "a": {}}})
    assert one == same and hash(one) == hash(same)
    assert one != other
    assert list(json.loads(other.source)["properties"]) == ["b", "a"]


def test_backend_is_part_of_the_value() -> None:
    assert json_schema_constraint(True) != json_schema_constraint(True, "outlines_core")


def test_json_object_is_the_schema_of_any_object() -> None:
    assert json_schema_constraint({"type": "object"}) == JSON_OBJECT


def test_engine_options_are_stripped_where_they_are_keywords_only() -> None:
    options = {"x-guidance": {"whitespace_flexible": True}}
    schema = {
        **options,
        "properties": {"x-guidance": {"type": "string", **options}},
        "patternProperties": {"x-guidance": {**options}},
        "$defs": {"x-guidance": {**options, "items": [{**options}]}},
        "dependentSchemas": {"x-guidance": {**options}},
        "anyOf": [{**options}, True],
        "items": {**options},
        "const": options,
        "enum": [options],
        "default": options,
        "examples": [options],
        "required": ["x-guidance"],
    }
    assert json.loads(json_schema_constraint(schema).source) == {
        "properties": {"x-guidance": {"type": "string"}},
        "patternProperties": {"x-guidance": {}},
        "$defs": {"x-guidance": {"items": [{}]}},
        "dependentSchemas": {"x-guidance": {}},
        "anyOf": [{}, True],
        "items": {},
        "const": options,
        "enum": [options],
        "required": ["x-guidance"],
    }


def test_schemas_that_mean_the_same_are_equal_constraints() -> None:
    one = {
        "title": "T",
        "type": "object",
        "properties": {"title": {"description": "d", "maxLength": 3, "type": "string"}},
        "required": ["title"],
    }
    same = {
        "required": ["title"],
        "properties": {"title": {"type": "string", "maxLength": 3, "examples": ["x"]}},
        "type": "object",
        "$comment": "none",
    }
    assert json_schema_constraint(one) == json_schema_constraint(same)
    data = {"const": {"title": 1, "default": 2}}
    assert json.loads(json_schema_constraint(data).source) == data


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (False, "accepts no text"),
        ("{}", "not str"),
        (None, "not NoneType"),
        ([], "not list"),
        ({1: {}}, "text as keys"),
        ({"const": {1, 2}}, "not set"),
        ({"const": float("nan")}, "no number nan"),
        ({"const": float("inf")}, "no number inf"),
        ({"const": "\ud800"}, "surrogate"),
        (_nested(250), "deeper than 100"),
        (_nested(5_000), "deeper than 100"),
        ({"const": "x" * 1_000_001}, "the limit is 1,000,000"),
    ],
)
def test_what_is_no_schema_is_refused_with_the_reason(schema: Any, says: str) -> None:
    with pytest.raises(ConstraintError, match=says):
        json_schema_constraint(schema)


def test_schema_that_holds_itself_is_refused() -> None:
    schema: dict[str, Any] = {}
    schema["items"] = schema
    with pytest.raises(ConstraintError, match="deeper"):
        json_schema_constraint(schema)


def test_choices_have_no_order() -> None:
    assert choice_constraint(["b", "a", "b"]) == choice_constraint(("a", "b"))


@pytest.mark.parametrize("choices", [[], "ab", [1], [None]])
def test_bad_choices_are_refused(choices: Any) -> None:
    with pytest.raises(ConstraintError):
        choice_constraint(choices)


@pytest.mark.parametrize("text", ["", "  ", None, 3])
def test_blank_regexes_and_grammars_are_refused(text: Any) -> None:
    for make in (regex_constraint, grammar_constraint):
        with pytest.raises(ConstraintError, match="not blank"):
            make(text)
