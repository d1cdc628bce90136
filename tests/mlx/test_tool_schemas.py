"""Tools whose schemas branch: what the grammar lets through satisfies the caller's own schema."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import litellm
import pytest

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.compiler import compile_constraint
from litellm_mlx.grammar.structure import structure_constraint
from litellm_mlx.translate.tool_formats.form import Form
from litellm_mlx.translate.tool_schema import arguments_schema
from tests.mlx.test_tools import planned
from tests.tool_families import FAMILIES, Family, vocabulary_of

USER = [{"role": "user", "content": "hello"}]
SHORT = {"type": "string", "maxLength": 6}
READ = {"properties": {"action": {"const": "read"}, "path": SHORT}, "required": ["path"]}
FIND = {"properties": {"action": {"const": "find"}, "name": SHORT}, "required": ["name"]}
NAMED = {"properties": {"path": SHORT}, "required": ["path"]}
ACTION = {"properties": {"action": {"enum": ["read", "find"]}}, "required": ["action"]}
DEFS = {"$defs": {"Read": READ, "Find": FIND, "Action": ACTION}}

# Every place from which a schema may say something of the same object.
SCHEMAS: dict[str, dict[str, Any]] = {
    "oneOf": {"type": "object", **ACTION, "oneOf": [READ, FIND]},
    "anyOf": {"type": "object", **ACTION, "anyOf": [READ, FIND]},
    "allOf": {"type": "object", "allOf": [ACTION, READ]},
    "if": {"type": "object", **ACTION, "if": {"properties": {"action": {"const": "read"}}},
           "then": READ, "else": FIND},
    "dependentSchemas": {"type": "object", **ACTION, "dependentSchemas": {"action": NAMED}},
    "dependentRequired": {"type": "object", **ACTION, "dependentRequired": {"action": ["x"]}},
    "$ref": {"$ref": "#/$defs/Read", **DEFS},
    "an older $ref": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$ref": "#/definitions/Read",
        "definitions": {"Read": {"type": "object", **READ}},
    },
    "oneOf of $ref": {
        "type": "object",
        "oneOf": [{"$ref": "#/$defs/Read"}, {"$ref": "#/$defs/Find"}],
        **ACTION,
        **DEFS,
    },
    "anyOf of closed": {
        "anyOf": [{"type": "object", **b, "additionalProperties": False} for b in (READ, FIND)]
    },
    "required only": {
        "type": "object",
        "properties": {"path": SHORT, "name": SHORT},
        "anyOf": [{"required": ["path"]}, {"required": ["name"]}],
    },
    "required without a property": {"properties": {"path": SHORT}, "required": ["url"]},
    "object or null": {"type": ["object", "null"], **READ},
    "a list of one type": {"type": ["object"], **READ},
    "no type": dict(READ),
    "unevaluatedProperties": {
        "type": "object", **ACTION, "anyOf": [READ, FIND], "unevaluatedProperties": False
    },
    "contradiction of an optional": {
        "type": "object",
        "properties": {"path": SHORT, "n": {"type": "integer", "minimum": 5, "maximum": 2}},
        "required": ["path"],
    },
}  # fmt: skip


def arguments_of_call(model: str, schema: dict[str, Any], seed: int) -> Any:
    """Arguments that random weights wrote; `None` where no try of the check tier was valid."""
    tool = {"type": "function", "function": {"name": "files", "parameters": schema}}
    options: dict[str, Any] = {"tool_choice": "required", "parallel_tool_calls": False}
    try:
        answer = litellm.completion(model, USER, tools=[tool], max_tokens=300, seed=seed, **options)
    except litellm.JSONSchemaValidationError:
        return None
    (call,) = answer.choices[0].message.tool_calls
    return json.loads(call.function.arguments)


@pytest.mark.parametrize("name", SCHEMAS)
def test_arguments_satisfy_a_schema_that_branches(tiny: str, name: str) -> None:
    schema = SCHEMAS[name]
    found = [arguments_of_call(tiny, schema, seed) for seed in range(2)]
    for seed in range(2, 8):
        if any(arguments is not None for arguments in found):
            break
        found.append(arguments_of_call(tiny, schema, seed))
    served = [arguments for arguments in found if arguments is not None]
    assert served
    for arguments in served:
        assert isinstance(arguments, dict)
        jsonschema.validate(arguments, schema)
        assert arguments.keys() <= {"action", "path", "name", "url", "x"}


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_arguments_are_held_to_only_narrows_the_tools_schema(name: str) -> None:
    schema = SCHEMAS[name]
    narrowed = jsonschema.Draft202012Validator(arguments_schema(schema))
    own = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)(schema)
    values = [None, 7, "a"]
    values += [
        {k: v for k, v in zip(("action", "path", "name", "url", "x", "n"), row, strict=True) if v}
        for row in _rows(["read", "find", ""], ["p", "", 5], ["q", ""], ["u", ""], [1, 0], [3, 0])
    ]
    num_valid = 0
    for value in values:
        if narrowed.is_valid(value) and "unevaluatedProperties" not in schema:
            assert own.is_valid(value), value
            assert isinstance(value, dict)
        num_valid += narrowed.is_valid(value)
    assert num_valid


def _rows(*columns: list[Any]) -> list[list[Any]]:
    rows: list[list[Any]] = [[]]
    for column in columns:
        rows = [[*row, value] for row in rows for value in column]
    return rows


@pytest.mark.parametrize(
    "branch",
    [
        {"patternProperties": {"^x-": {}}},
        {"additionalProperties": {"type": "integer"}},
        {"additionalProperties": True},
        {"unevaluatedProperties": True},
        {"$id": "https://example.org/other", "properties": {"b": {}}},
        {"$ref": "#elsewhere"},
        {"$dynamicRef": "#node"},
    ],
    ids=str,
)
@pytest.mark.parametrize("keyword", ["allOf", "anyOf", "oneOf"])
def test_an_object_stays_open_where_a_branch_speaks_of_more_than_names(
    keyword: str, branch: dict[str, Any]
) -> None:
    schema = {"type": "object", "properties": {"a": {}}, keyword: [branch, {"required": ["a"]}]}
    assert "additionalProperties" not in arguments_schema(schema)


@pytest.mark.parametrize("kind", ["string", ["string", "null"], [], "array"])
def test_a_tool_that_takes_no_object_is_refused(kind: Any) -> None:
    with pytest.raises(ConstraintError, match="describe an object"):
        arguments_schema({"type": kind})


@pytest.mark.parametrize("form", [f.form for f in FAMILIES], ids=lambda f: type(f).__name__)
def test_forms_that_write_arguments_one_by_one_know_those_of_branches(form: Form) -> None:
    from litellm_mlx.translate.tool_formats.form import Tool
    from litellm_mlx.translate.tool_formats.values import arguments_of

    tool = Tool("f", "", arguments_schema(SCHEMAS["oneOf of $ref"]))
    assert [(a.name, a.is_required) for a in arguments_of(tool)] == [
        ("action", True),
        ("path", False),
        ("name", False),
    ]
    assert form.arguments_part(tool)


CONTRADICTIONS: dict[str, Any] = {
    "types": {"allOf": [{"type": "string"}, {"type": "integer"}]},
    "bounds": {"type": "integer", "minimum": 5, "maximum": 3},
    "never": False,
    "reference": {"$ref": "#/$defs/None", "type": "string"},
    "required inside": {"type": "object", "properties": {"x": False}, "required": ["x"]},
}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradiction_in_an_optional_property_costs_that_property(
    family: Family, name: str
) -> None:
    parameters = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": CONTRADICTIONS[name]},
        "required": ["a"],
        "$defs": {"None": {"type": "null"}},
    }
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    plan = planned(family.form, tools=[tool], tool_choice="required")
    assert plan.repairs == ("tool 'f': no value can satisfy 'b'",)
    compile_constraint(structure_constraint(plan.root), vocabulary_of(family.name))


def test_a_contradiction_in_a_required_property_is_refused_by_the_tools_name(tiny: str) -> None:
    parameters = {
        "type": "object",
        "properties": {"b": CONTRADICTIONS["types"]},
        "required": ["b"],
    }
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    with pytest.raises(litellm.BadRequestError, match="tool 'f'"):
        litellm.completion(tiny, USER, tools=[tool], tool_choice="required")


def test_repairs_of_tools_are_told(tiny: str) -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}, "b": False}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    answer = litellm.completion(tiny, USER, tools=[tool], tool_choice="required", max_tokens=60)
    told = answer.choices[0].message.provider_specific_fields["repairs"]
    assert told == ["tool 'f': no value can satisfy 'b'"]
