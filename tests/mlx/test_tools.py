"""Tool calls in every family's own syntax: what the grammar lets through is read and is valid."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import jsonschema
import pytest

from litellm_mlx.errors import EngineError
from litellm_mlx.grammar.closing import shortest_ending
from litellm_mlx.grammar.structure import json_part, structure_constraint
from litellm_mlx.grammar.structure_compiler import (
    StructureIndex,
    compile_structure,
)
from litellm_mlx.grammar.vocabulary import Vocabulary, marker_token_ids
from litellm_mlx.translate.params import parse_params
from litellm_mlx.translate.tool_formats.families import form_of
from litellm_mlx.translate.tool_formats.form import Form
from litellm_mlx.translate.tool_reader import ToolCall, read_calls
from litellm_mlx.translate.tools import ToolPlan, plan_tools
from tests.grammar_sampling import allowed_tokens, byte_ids, draw
from tests.tool_families import (
    CALLS,
    FAMILIES,
    OTHER_FORMS,
    TOOLS,
    Family,
    tokenizer_of,
    vocabulary_of,
    vocabulary_with,
)

NAMED = {"type": "function", "function": {"name": "set_alarm"}}
ANSWER = {
    "type": "object",
    "properties": {"answer": {"type": "integer"}},
    "required": ["answer"],
    "additionalProperties": False,
}
by_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
by_choice = pytest.mark.parametrize("choice", ["auto", "required", NAMED], ids=str)


def planned(form: Form, *, schema: Any = None, **params: Any) -> ToolPlan:
    given = parse_params({"tools": TOOLS, **params}, drops_unsupported=False)
    plan = plan_tools(given, None if schema is None else json_part(schema), form)
    assert plan is not None
    return plan


def compiled(plan: ToolPlan, vocabulary: Vocabulary) -> StructureIndex:
    return compile_structure(structure_constraint(plan.root), vocabulary)


def drawn(plan: ToolPlan, vocabulary: Vocabulary, num: int = 8) -> list[str]:
    """Random texts that came to an end; raw strings often do not."""
    index, rng = compiled(plan, vocabulary), random.Random(11)
    texts = (draw(index, vocabulary, rng, max_tokens=500) for _ in range(num))
    return [text.decode("utf-8", "replace") for text in texts if text is not None]


def allows(plan: ToolPlan, vocabulary: Vocabulary, text: str) -> bool:
    """Asked token by token, markers as their tokens and all else byte by byte."""
    guide = compiled(plan, vocabulary).guide()
    markers = sorted(marker_token_ids(vocabulary).items(), key=lambda item: -len(item[0]))
    while text:
        found = next((m for m in markers if text.startswith(m[0])), None)
        ids = [found[1]] if found else byte_ids(vocabulary, text[0])
        text = text[len(found[0]) if found else 1 :]
        try:
            for token_id in ids:
                guide.advance(token_id)
        except EngineError:
            return False
    return guide.is_accepting


def assert_valid(calls: Sequence[ToolCall]) -> None:
    schemas = {t["function"]["name"]: t["function"].get("parameters", {}) for t in TOOLS}
    for call in calls:
        arguments = json.loads(call.arguments)
        assert isinstance(arguments, dict)
        jsonschema.validate(arguments, schemas[call.name])


@by_family
def test_the_models_own_files_tell_its_form(family: Family) -> None:
    assert form_of(tokenizer_of(family.name)) == family.form


@by_family
@by_choice
@pytest.mark.parametrize("is_parallel", [True, False])
@pytest.mark.parametrize("schema", [None, ANSWER], ids=["text", "schema"])
def test_random_answers_are_valid_calls_or_answers(
    family: Family, choice: Any, is_parallel: bool, schema: Any
) -> None:
    plan = planned(family.form, schema=schema, tool_choice=choice, parallel_tool_calls=is_parallel)
    texts = drawn(plan, vocabulary_of(family.name))
    assert texts
    for text in texts:
        content, calls = read_calls(plan.reader(), text)
        assert_valid(calls)
        assert plan.check(text) is None
        assert is_parallel or len(calls) <= 1
        if choice != "auto":
            assert calls
            assert not content
        if choice == NAMED:
            assert [call.name for call in calls] == ["set_alarm"]
        if schema is not None and not calls:
            jsonschema.validate(json.loads(content), schema)
        if schema is not None and calls:
            assert not content


@pytest.mark.parametrize("name", OTHER_FORMS)
def test_random_calls_of_forms_without_a_template_here(name: str) -> None:
    form = OTHER_FORMS[name]
    plan = planned(form, tool_choice="required")
    texts = drawn(plan, vocabulary_with(form.markers), 12)
    assert texts
    for text in texts:
        content, calls = read_calls(plan.reader(), text)
        assert calls
        assert not content
        assert_valid(calls)


@by_family
def test_calls_as_the_family_writes_them(family: Family) -> None:
    plan = planned(family.form)
    assert allows(plan, vocabulary_of(family.name), family.text)
    content, calls = read_calls(plan.reader(), family.text)
    assert content == ""
    assert [(c.name, json.loads(c.arguments)) for c in calls] == CALLS[: family.num_calls]


@by_family
def test_text_may_come_first_and_nothing_after(family: Family) -> None:
    plan, vocabulary = planned(family.form), vocabulary_of(family.name)
    head = family.form.answer_head
    text = f"{head}I say {{x}}."
    assert allows(plan, vocabulary, text)
    assert read_calls(plan.reader(), text) == ("I say {x}.", ())
    if not family.form.leads_answer:
        assert allows(plan, vocabulary, f"Well:\n{family.text}")
        content, calls = read_calls(plan.reader(), f"Well:\n{family.text}")
        assert (content, len(calls)) == ("Well:\n", family.num_calls)
    assert not allows(plan, vocabulary, f"{family.text} and more")


@by_family
def test_arguments_and_names_are_held(family: Family) -> None:
    plan, vocabulary = planned(family.form), vocabulary_of(family.name)
    assert not allows(plan, vocabulary, family.text.replace("set_alarm", "unset", 1)) or (
        "set_alarm" not in family.text
    )
    assert not allows(plan, vocabulary, family.text.replace("get_weather", "weather", 1))
    assert not allows(plan, vocabulary, family.text.replace("3", "33", 1))


@by_family
def test_streamed_pieces_joined_are_the_whole_answer(family: Family) -> None:
    plan, rng = planned(family.form), random.Random(5)
    lead = "" if family.form.leads_answer else "Text <too \n"
    text = lead + family.text
    whole, calls = read_calls(plan.reader(), text)
    for _ in range(50):
        reader, left, parts = plan.reader(), text, []
        while left:
            cut = rng.randint(1, 9)
            parts.append(reader.add(left[:cut]))
            left = left[cut:]
        parts.append(reader.finish())
        assert "".join(part.text for part in parts) == whole
        deltas = [delta for part in parts for delta in part.tool_calls]
        for place, call in enumerate(calls):
            own = [delta for delta in deltas if delta.position == place]
            assert [d.name for d in own if d.name] == [call.name]
            assert len({d.id for d in own} - {""}) == 1
            assert "".join(d.arguments for d in own) == call.arguments


def test_arguments_are_streamed_before_the_call_is_over() -> None:
    for name, seen in (("hermes", '{"city": "São'), ("glm", '{"city": "S\\u00e3o')):
        family = next(f for f in FAMILIES if f.name == name)
        reader = planned(family.form).reader()
        half = family.text[: family.text.index("[1, 2]")]
        given = "".join(d.arguments for d in reader.add(half).tool_calls)
        assert given.startswith(seen) or given.startswith('{"city": "São')
        assert not given.endswith("}")


def mlx_lm_reads(family: Family, text: str) -> list[tuple[str, Any]]:
    """As mlx-lm's server does: what stands between the markers goes to its parser."""
    tokenizer = tokenizer_of(family.name)
    start, end = tokenizer.tool_call_start, tokenizer.tool_call_end
    pieces = text.split(start)[1:]
    found = []
    for piece in pieces:
        parsed = tokenizer.tool_parser(piece.split(end)[0] if end else piece, TOOLS)
        found += parsed if isinstance(parsed, list) else [parsed]
    return [(call["name"], call["arguments"]) for call in found]


@pytest.mark.parametrize("name", ["hermes", "mistral", "ministral", "kimi_k2"])
def test_mlx_lms_parser_reads_random_calls_alike(name: str) -> None:
    family = next(f for f in FAMILIES if f.name == name)
    plan = planned(family.form, tool_choice="required")
    texts = drawn(plan, vocabulary_of(name), 20)
    assert texts
    for text in texts:
        _, calls = read_calls(plan.reader(), text)
        if any(m in call.arguments for m in family.form.markers for call in calls):
            continue  # a marker spelled inside a string, which mlx-lm splits at
        assert mlx_lm_reads(family, text) == [(c.name, json.loads(c.arguments)) for c in calls]


@by_family
def test_mlx_lms_parser_reads_the_example_alike(family: Family) -> None:
    if tokenizer_of(family.name).tool_parser is None:
        assert family.name in {"llama", "harmony", "plain"}
        return
    assert mlx_lm_reads(family, family.text) == CALLS[: family.num_calls]


@by_family
def test_every_call_can_be_closed_from_wherever_it_is(family: Family) -> None:
    plan, vocabulary = planned(family.form, tool_choice="required"), vocabulary_of(family.name)
    constraint, index = structure_constraint(plan.root), compiled(plan, vocabulary)
    for seed in range(12):
        guide, rng, text = index.guide(), random.Random(seed), b""
        for _ in range(rng.randint(0, 60)):
            if guide.is_finished:
                break
            ids = [i for i in allowed_tokens(guide, vocabulary) if vocabulary.token_bytes(i)]
            if not ids:
                break
            token_id = rng.choice(ids)
            guide.advance(token_id)
            text += vocabulary.token_bytes(token_id)
        ending = shortest_ending(guide, constraint)
        assert ending is not None, text
        assert guide.ends_with(ending)
        text += b"".join(map(vocabulary.token_bytes, ending))
        calls = read_calls(plan.reader(), text.decode("utf-8", "replace"))[1]
        assert calls
        assert_valid(calls)


TRAPS = ["null", "None", "123", "true", '"quoted"', " spaced ", "\n", "", "a,b:c", "<x>&</x>", "{"]


@pytest.mark.parametrize(
    "form",
    [*(f.form for f in FAMILIES), *OTHER_FORMS.values()],
    ids=[*(f.name for f in FAMILIES), *OTHER_FORMS],
)
@pytest.mark.parametrize("city", TRAPS)
def test_a_string_stays_the_string_that_it_is(form: Form, city: str) -> None:
    plan = planned(form, tool_choice="required")
    weather = next(tool for tool in plan.tools if tool.name == "get_weather")
    arguments = {"city": city, "days": 1}
    text = form.opens + form.call_text(weather, arguments) + form.closes
    assert allows(plan, vocabulary_with(form.markers), text)
    (call,) = read_calls(plan.reader(), text)[1]
    assert json.loads(call.arguments) == arguments


@pytest.mark.parametrize("form", [FAMILIES[0].form, FAMILIES[8].form], ids=["hermes", "harmony"])
def test_an_empty_answer_schema_beside_tools_means_a_call(form: Form) -> None:
    empty = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    plan = planned(form, schema=empty)
    texts = drawn(plan, vocabulary_with(form.markers))
    assert texts
    assert all(read_calls(plan.reader(), text)[1] for text in texts)


def test_a_thought_before_a_call_is_told_apart() -> None:
    family = next(f for f in FAMILIES if f.name == "harmony")
    thought = "<|channel|>analysis<|message|>Hm, <tool>.<|end|><|start|>assistant"
    plan = planned(family.form, tool_choice="required")
    assert allows(plan, vocabulary_of("harmony"), thought + family.text)
    reader = plan.reader()
    parts = [reader.add(char) for char in thought + family.text]
    assert "".join(part.reasoning for part in parts) == "Hm, <tool>."
    assert [d.name for part in parts for d in part.tool_calls if d.name] == ["get_weather"]


def test_what_a_syntax_cannot_hold_is_checked() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "minProperties": 2,
    }
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    glm = next(f for f in FAMILIES if f.name == "glm").form
    params = parse_params({"tools": [tool], "tool_choice": "required"}, drops_unsupported=False)
    plan = plan_tools(params, None, glm)
    assert plan is not None
    assert not plan.is_held
    (call,) = plan.tools
    assert plan.check(glm.call_text(call, {"a": 1, "b": 2})) is None
    reason = plan.check(glm.call_text(call, {"a": 1}))
    assert reason is not None
    assert reason.startswith("arguments of f: ")


def test_free_text_keeps_all_that_only_looks_like_a_call() -> None:
    reader: Callable[[], Any] = planned(FAMILIES[0].form).reader
    for text in ("a <tool_cal", "<tool", "x < y <<", "{}"):
        assert read_calls(reader(), text) == (text, ())
    llama = planned(next(f for f in FAMILIES if f.name == "llama").form)
    for text in ('{"name": ', '{"x": 1}', "{"):
        assert read_calls(llama.reader(), text) == (text, ())
        assert allows(llama, vocabulary_of("llama"), text)
