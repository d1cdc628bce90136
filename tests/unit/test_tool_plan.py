"""What a request says of tools is honoured or refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from litellm_mlx.errors import ConstraintError, UnsupportedParameterError
from litellm_mlx.grammar.structure import FreeText, JsonPart, OneOf, json_part
from litellm_mlx.translate.params import parse_params
from litellm_mlx.translate.tool_formats.families import (
    GLM,
    HERMES,
    LLAMA,
    LLAMA_TAGGED,
    MISTRAL_LIST,
)
from litellm_mlx.translate.tool_formats.form import Form, Tool
from litellm_mlx.translate.tool_formats.json_form import JsonScanner
from litellm_mlx.translate.tool_formats.values import (
    arguments_of,
    choices_of,
    kind_of,
    standalone,
)
from litellm_mlx.translate.tool_reader import read_calls
from litellm_mlx.translate.tools import ToolPlan, plan_tools

ADD: dict[str, Any] = {
    "name": "add",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
}
STOP: dict[str, Any] = {"name": "stop"}
TOOLS = [{"type": "function", "function": function} for function in (ADD, STOP)]
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'


def planned(form: Form = HERMES, *, schema: Any = None, **params: Any) -> ToolPlan | None:
    given = parse_params(params, drops_unsupported=False)
    return plan_tools(given, None if schema is None else json_part(schema), form)


def plan_of(form: Form = HERMES, **params: Any) -> ToolPlan:
    plan = planned(form, **({"tools": TOOLS} | params))
    assert plan is not None
    return plan


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"tools": []},
        {"tools": TOOLS, "tool_choice": "none"},
        {"tools": TOOLS, "tool_choice": {"type": "none"}},
        {"functions": [ADD], "function_call": "none"},
        {"tool_choice": "auto"},
        {"tool_choice": "none"},
    ],
)
def test_no_plan_where_no_call_may_come(params: dict[str, Any]) -> None:
    assert planned(**params) is None


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"tools": TOOLS, "tool_choice": "maybe"}, "tool_choice='maybe' is not known"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}},
            "tool_choice='allowed_tools' is not known",
        ),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice names 'x', which is none of the tools: add, stop",
        ),
        ({"tool_choice": "required"}, "there are no tools"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, r"tools\[1\]: two tools are named 'add'"),
        ({"tools": TOOLS, "functions": [ADD]}, "exclude each other"),
        ({"tools": [{"type": "web_search"}]}, r"'web_search' \(tools\[0\]\)"),
        ({"tools": [{"type": "function"}]}, r"tools\[0\].function: Field required"),
        ({"tools": [{"function": {"name": "a b"}}]}, r"tools\[0\].function.name: "),
        ({"tools": [{"function": {"name": 'a"\n'}}]}, r"tools\[0\].function.name: "),
        ({"tools": [{"function": {"name": ""}}]}, r"tools\[0\].function.name: "),
        ({"tools": [7]}, r"tools\[0\]: "),
        ({"functions": [{"name": "f" * 200}]}, r"functions\[0\].function.name: "),
    ],
)
def test_what_is_not_known_is_refused_by_name(params: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedParameterError, match=message):
        planned(**params)


VENDORS = [
    {"type": "web_search_20250305", "name": "web_search"},
    {"type": "web_fetch_20250910", "name": "web_fetch"},
    {"type": "code_execution_20250825", "name": "code_execution"},
    {"type": "bash_20250124", "name": "bash"},
    {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"},
    {"type": "memory_20250818", "name": "memory"},
    {"type": "file_search", "vector_store_ids": ["a"]},
    {"type": "mcp", "server_label": "docs"},
    {"type": "image_generation"},
    {"type": "custom", "custom": {"name": "code_exec"}},
]


def test_tools_that_are_no_functions_are_all_named_in_one_message() -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        planned(tools=[*TOOLS, *VENDORS])
    for place, tool in enumerate(VENDORS, len(TOOLS)):
        assert f"{tool['type']!r}" in str(caught.value)
        assert f"(tools[{place}])" in str(caught.value)
    assert "'code_exec'" in str(caught.value)
    assert "(tools[0])" not in str(caught.value)


def test_a_computer_that_comes_as_a_function_is_refused_by_name() -> None:
    display = {"display_width_px": 1024, "display_height_px": 768}
    with pytest.raises(UnsupportedParameterError, match=r"'computer' \(tools\[0\]\)"):
        planned(tools=[{"function": {"name": "computer", "parameters": display}}])


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "array"}, "tool 'f': parameters describe an object, not 'array'"),
        ({"type": "object", "properties": {"x": {"type": "int"}}}, "tool 'f': "),
        ({"type": "object", "properties": 3}, "tool 'f': "),
    ],
)
def test_a_schema_that_is_none_is_refused_with_its_tool(schema: Any, message: str) -> None:
    with pytest.raises(ConstraintError, match=message):
        planned(tools=[{"function": {"name": "f", "parameters": schema}}])


def test_auto_is_text_or_calls_and_required_is_calls() -> None:
    assert plan_of().may_begin_with_text
    assert not plan_of(tool_choice="required").may_begin_with_text
    assert plan_of(tool_choice="any").root == plan_of(tool_choice="required").root


def test_a_named_tool_is_the_only_one_and_comes_once() -> None:
    named = plan_of(tool_choice={"type": "function", "function": {"name": "add"}})
    assert [tool.name for tool in named.tools] == ["add"]
    assert len(named.template_tools) == 2  # the prompt still shows all of them
    alone = plan_of(tools=TOOLS[:1], tool_choice="required", parallel_tool_calls=False)
    assert named.root == alone.root


def test_with_a_response_format_it_is_the_schema_or_calls() -> None:
    schema = {"type": "object", "properties": {"x": {}}, "required": ["x"]}
    root = plan_of(schema=schema).root
    assert isinstance(root, OneOf)
    assert isinstance(root.options[0], JsonPart)


def test_an_empty_object_schema_leaves_only_calls() -> None:
    empty = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    assert plan_of(schema=empty).root == plan_of(tool_choice="required").root
    assert plan_of(schema={"type": "object"}).root != plan_of(tool_choice="required").root


def test_llamas_calls_are_marked_where_an_answer_may_begin_with_a_brace() -> None:
    assert plan_of(LLAMA).form is LLAMA
    assert plan_of(LLAMA, schema={"type": "object"}).form is LLAMA_TAGGED


def test_older_functions_are_tools_and_the_answer_is_told() -> None:
    plan = plan_of(tools=[], functions=[ADD], function_call={"name": "add"})
    assert plan.is_function_call
    assert plan.template_tools[0]["function"]["name"] == "add"
    assert not plan_of().is_function_call


def test_templates_see_every_name_that_they_read() -> None:
    shown = plan_of().template_tools[1]["function"]
    assert shown == {
        "name": "stop",
        "description": "",
        "parameters": {"type": "object", "properties": {}},
    }


def test_unnamed_properties_are_closed_unless_the_schema_speaks_of_them() -> None:
    def parameters(schema: Any) -> Any:
        (tool,) = plan_of(tools=[{"function": {"name": "f", "parameters": schema}}]).tools
        return tool.parameters

    assert parameters({"properties": {"a": {}}})["additionalProperties"] is False
    assert parameters({"properties": {}, "additionalProperties": True})["additionalProperties"]
    assert "additionalProperties" not in parameters({"type": "object"})
    assert parameters(None)["additionalProperties"] is False


def test_free_text_excludes_what_a_call_begins_with() -> None:
    for form, trigger in ((HERMES, "<tool_call>"), (MISTRAL_LIST, "[TOOL_CALLS]")):
        assert FreeText((trigger,)) in getattr(plan_of(form).root, "parts", ())


def test_ids_are_unlike_and_as_the_family_wants_them() -> None:
    text = f"{CALL}\n{CALL}"
    _, calls = read_calls(plan_of().reader(), text)
    assert len({call.id for call in calls}) == 2
    assert all(call.id.startswith("call_") for call in calls)
    text = '[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}}]'
    ((call,),) = read_calls(plan_of(MISTRAL_LIST).reader(), text)[1:]
    assert len(call.id) == 9
    assert call.id.isalnum()


def test_a_cut_text_loses_no_words() -> None:
    assert read_calls(plan_of().reader(), "so <tool") == ("so <tool", ())
    content, (call,) = read_calls(plan_of().reader(), f"so {CALL[:-20]}")
    assert (content, call.name) == ("so ", "add")


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "string", "title": "T", "default": "x"}, "raw"),
        ({"type": "string", "enum": ["a", "b"]}, "raw"),
        ({"const": "a"}, "raw"),
        ({"type": ["string", "null"]}, "raw_or_null"),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, "raw_or_null"),
        ({"type": "string", "minLength": 1}, "json"),
        ({"type": "string", "format": "date"}, "json"),
        ({"enum": ["a", 1]}, "json"),
        ({"type": "integer"}, "json"),
        ({"type": ["string", "integer"]}, "json"),
        ({}, "json"),
    ],
)
def test_only_strings_that_may_be_anything_are_written_as_they_are(schema: Any, kind: str) -> None:
    assert kind_of(schema) == kind


def test_choices_are_strings_only() -> None:
    assert choices_of({"enum": ["a", "b"], "description": "d"}) == ("a", "b")
    assert choices_of({"enum": ["a", None]}) is None
    assert choices_of({"enum": ["a"], "minLength": 3}) is None


def test_an_argument_name_that_would_break_markup_is_refused() -> None:
    schema = {"type": "object", "properties": {"a</arg_key>": {"type": "string"}}}
    with pytest.raises(ConstraintError, match=r"tool 'f': .*rename it"):
        plan_of(GLM, tools=[{"function": {"name": "f", "parameters": schema}}])


def test_a_required_name_without_a_property_is_an_argument_too() -> None:
    schema = {"properties": {"b": {}}, "required": ["a"]}
    found = [(a.name, a.is_required) for a in arguments_of(Tool("f", "", schema))]
    assert found == [("b", False), ("a", True)]


def test_a_subschema_takes_what_it_refers_to_along() -> None:
    root = {"$defs": {"N": {"items": {"$ref": "#/$defs/N"}}}, "properties": {"a": {"$ref": "#"}}}
    alone = standalone({"$ref": "#/$defs/N"}, root)
    assert alone["$ref"] == "#/$defs/tool/$defs/N"
    inner = alone["$defs"]["tool"]["$defs"]["N"]["items"]["$ref"]
    assert inner == "#/$defs/tool/$defs/N"


def test_the_end_of_a_json_object_is_found_character_by_character() -> None:
    text = json.dumps({"a": '}"\\', "b": [{"c": "{"}]})
    scanner, given, is_over = JsonScanner(), "", False
    for char in f"{text}}}":
        if not is_over:
            _, part, is_over = scanner.read(char)
            given += part
    assert given == text
