"""Every key of a response format is honoured or refused by its name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from litellm_mlx.errors import ConstraintError, UnsupportedParameterError
from litellm_mlx.translate.params import parse_params
from litellm_mlx.translate.structured import wanted_constraint
from litellm_mlx.types import Constraint

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def wanted(response_format: dict[str, Any]) -> Constraint | None:
    params = parse_params({"response_format": response_format}, drops_unsupported=False)
    return wanted_constraint(params, "llguidance")


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
        {"type": "json_schema", "json_schema": {"schema": SCHEMA, "strict": False}},
        {"type": "json_schema", "json_schema": {"schema": SCHEMA, "description": None}},
        {"type": "json_schema", "schema": SCHEMA, "name": "a", "strict": True},
        {"type": "json_object", "schema": SCHEMA},
        {"type": "json_object", "response_schema": SCHEMA},
        {"type": "json_object", "response_schema": SCHEMA, "enforce_validation": True},
        {"type": "json_object", "schema": SCHEMA, "response_schema": None},
    ],
    ids=json.dumps,
)
def test_a_schema_is_enforced_wherever_clients_write_it(response_format: dict[str, Any]) -> None:
    constraint = wanted(response_format)
    assert constraint is not None
    assert json.loads(constraint.source) == SCHEMA


@pytest.mark.parametrize("given", [{}, {"schema": None}, {"schema": {}}, {"response_schema": {}}])
def test_without_a_schema_json_object_is_any_object(given: dict[str, Any]) -> None:
    constraint = wanted({"type": "json_object", **given})
    assert constraint is not None
    assert json.loads(constraint.source) == {"type": "object"}


@pytest.mark.parametrize(
    ("response_format", "named"),
    [
        ({"type": "json_object", "shema": SCHEMA}, "response_format.shema"),
        ({"type": "json_object", "json_schema": {"schema": SCHEMA}}, "response_format.json_schema"),
        ({"type": "json_object", "schema": SCHEMA, "response_schema": SCHEMA}, "two schemas"),
        ({"type": "json_schema", "json_schema": {"schema": SCHEMA}, "schema": {}}, "two schemas"),
        ({"type": "json_schema", "json_schema": {"schema": SCHEMA, "x": 1}}, "json_schema.x"),
        ({"type": "text", "schema": SCHEMA}, "response_format.schema"),
        ({"type": "json", "schema": SCHEMA}, "type 'json'"),
        ({"schema": SCHEMA}, "type None"),
    ],
)
def test_any_other_key_is_refused_by_name(response_format: dict[str, Any], named: str) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        wanted(response_format)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "a"}},
        {"type": "json_schema", "json_schema": "a"},
        {"type": "json_object", "schema": "{}"},
    ],
)
def test_a_schema_that_is_missing_or_none_is_refused(response_format: dict[str, Any]) -> None:
    with pytest.raises(ConstraintError):
        wanted(response_format)


def test_text_asks_for_nothing() -> None:
    assert wanted({"type": "text"}) is None
