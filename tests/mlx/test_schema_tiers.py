"""The tiers of a schema: which one, what is left to the check, and what texts come of it."""

from __future__ import annotations

import json
import random
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from llguidance import LLMatcher
from pydantic import TypeAdapter

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.check import make_check
from litellm_mlx.grammar.check_cost import is_cheap_to_build, is_cheap_to_run
from litellm_mlx.grammar.compiler import compile_constraint
from litellm_mlx.grammar.constraint import json_schema_constraint, regex_constraint
from litellm_mlx.grammar.drafts import settle
from litellm_mlx.grammar.formats import FORMATS
from litellm_mlx.grammar.json_schema import is_narrow, narrow_schema
from litellm_mlx.grammar.matcher import JSON_OPTIONS, json_grammar
from litellm_mlx.grammar.relax import STEPS, has_only_enforced, loosen
from litellm_mlx.grammar.tiers import NAMES, SchemaPlan, plan_schema
from tests.grammar_sampling import accepts, draw, small_vocabulary

SEED = 20261121


def plan(schema: Any) -> SchemaPlan:
    return plan_schema(json_schema_constraint(schema).source, small_vocabulary())


def loosened(schema: Any) -> list[str]:
    return [item.pointer for item in plan(schema).loosened]


def test_what_the_engine_enforces_is_checked_all_the_same() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    index = compile_constraint(json_schema_constraint(schema), small_vocabulary())
    assert index.tier == "grammar"
    assert index.check('{"a": 1}') is None
    for text in ("this is not even JSON", '{"a": 1.5}', "{}"):
        assert index.check(text) is not None


def test_walks_that_are_spared_would_change_nothing() -> None:
    lines = (Path(__file__).parents[1] / "data/schemas.jsonl").read_text().splitlines()
    schemas = [settle(json.loads(line)["schema"]) for line in lines]
    num_spared = 0
    for schema in schemas:
        names = frozenset(NAMES.findall(json.dumps(schema, separators=(",", ":"))))
        if has_only_enforced(names):
            assert loosen(schema, STEPS[0], lambda pattern: True) == (schema, ())
        if is_narrow(names):
            assert narrow_schema(schema) == schema
            num_spared += 1
    assert num_spared >= 10


def test_the_grammar_of_a_schema_is_what_the_engines_own_function_gives() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "maxLength": 3}}}
    whole = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=JSON_OPTIONS)  # type: ignore[arg-type]
    (expected,), (got,) = (json.loads(text)["grammars"] for text in (whole, json_grammar(schema)))
    assert got == {key: value for key, value in expected.items() if value is not None}


def test_only_the_offending_keyword_is_loosened() -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {
            "tags": {"type": "array", "uniqueItems": True, "items": {"type": "integer"}},
            "a/b": {"type": "string", "pattern": "^(?!x)[a-z]+$", "maxLength": 3},
        },
        "required": ["tags"],
        "not": {"required": ["c"]},
    }
    found = plan(schema)
    assert found.tier == "grammar+check"
    assert [item.pointer for item in found.loosened] == [
        "/not",
        "/properties/tags/uniqueItems",
        "/properties/a~1b/pattern",
    ]
    index = compile_constraint(json_schema_constraint(schema), small_vocabulary())
    for text in ('{"tags": ["x"]}', '{"a/b": "abc"}', '{"tags": [1], "a/b": "abcd"}'):
        assert not accepts(index, small_vocabulary(), text), text


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"type": "integer", "multipleOf": 999_999_937}, "/multipleOf"),
        ({"const": 2**53 + 1}, "/const"),
        ({"type": "number", "minimum": 1e30}, "/minimum"),
        ({"type": "object", "minProperties": 3}, "/minProperties"),
        ({"oneOf": [{"type": "string"}, {"maxLength": 3}]}, "/oneOf"),
        ({"patternProperties": {"a": {}, "b": {"type": "null"}}}, "/patternProperties"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a", "maxItems": 1}}}},
         "/$defs/a/items/maxItems"),
        ({"items": {"$ref": "#/own/x"}, "own": {"x": {"uniqueItems": True}}},
         "/$defs/~1own~1x/uniqueItems"),
    ],
)  # fmt: skip
def test_what_is_left_to_the_check_is_named(schema: Any, pointer: str) -> None:
    assert pointer in loosened(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "uniqueItems": False},
        {"type": "array", "uniqueItems": True, "maxItems": 1},
        {"type": "object", "properties": {"a": {}}, "required": ["a"], "minProperties": 1},
        {"type": "object", "additionalProperties": False, "maxProperties": 9},
        {"type": "object", "minProperties": 1},
        TypeAdapter(Decimal).json_schema(),
        {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"},
        {"then": {"type": "null"}, "minContains": 2, "not": False, "dependentRequired": {}},
        {"type": "object", "propertyNames": {"type": "string"}},
        {"type": "object", "propertyNames": {"type": ["string", "null"], "minLength": 0}},
        {"type": "object", "propertyNames": {"title": "name"}},
        {"type": "object", "dependentRequired": {"a": []}, "dependentSchemas": {"a": {}}},
        {"type": "object", "dependencies": {"a": [], "b": {"required": []}}},
        {"type": "array", "items": {"type": "null"}, "minContains": 0, "maxContains": 0},
        {"if": {"required": ["a"]}, "then": {}, "else": True, "type": "object"},
        {"type": "object", "unevaluatedProperties": {"description": "any"}},
        {"type": "array", "unevaluatedItems": {}, "prefixItems": []},
        {"type": "object", "$recursiveAnchor": True, "properties": {"a": {"$recursiveRef": "#"}}},
    ],
)
def test_what_says_nothing_more_is_not_left_to_the_check(schema: Any) -> None:
    assert plan(schema).tier == "grammar"


def test_the_choice_is_the_same_every_time() -> None:
    schema = {"oneOf": [{"multipleOf": 3}, {"pattern": "(?=a)"}], "uniqueItems": True}
    assert len({str(plan(schema)) for _ in range(3)}) == 1


def test_a_schema_that_nothing_satisfies_is_refused_and_not_left_to_the_check() -> None:
    for schema in ({"enum": []}, {"allOf": [{"type": "string"}, {"type": "null"}]}):
        with pytest.raises(ConstraintError, match="Unsatisfiable"):
            compile_constraint(json_schema_constraint(schema), small_vocabulary())


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"properties": {"a": {"$ref": "other.json#/x"}}, "uniqueItems": True},
        {"not": {"$ref": "https://example.com/x"}},
        {"$ref": "#/$defs/none"},
    ],
)
def test_references_that_lead_out_are_refused_and_never_fetched(schema: Any) -> None:
    with pytest.raises(ConstraintError, match=r"nothing is fetched|does not exist"):
        compile_constraint(json_schema_constraint(schema), small_vocabulary())


# --- the check ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1, 2]", None),
        ("[1, 1]", "non-unique"),
        ("[1, 1.0]", "non-unique"),
        ('[{"a": 1, "a": 2}]', "twice"),
        ("[NaN]", "no number NaN"),
        ("[-Infinity]", "no number -Infinity"),
        ("[1e999]", "too large"),
        ("[" * 100_000, "not JSON"),
        ("[1" + "0" * 5_000 + "]", "not JSON"),
        ("[1, 2", "not JSON"),
        ("", "not JSON"),
    ],
)
def test_the_text_is_read_as_strictly_as_any_reader_may(text: str, says: str | None) -> None:
    said = plan({"type": "array", "uniqueItems": True}).check(text)
    assert said is None if says is None else says in str(said)
    assert len(said or "") <= 500


def test_the_check_knows_what_the_grammar_has_loosened() -> None:
    found = plan({"type": "object", "properties": {"a": {"not": {"const": 3}}}})
    assert found.check('{"a": 4}') is None
    said = found.check('{"a": 3}')
    assert said is not None and "'a'" in said


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_what_the_grammar_writes_for_a_format_the_check_takes(name: str) -> None:
    """The grammar is narrower than the format; in a loosened schema both are in force."""
    print("seed", SEED)
    schema = {"type": "array", "uniqueItems": True, "items": {"type": "string", "format": name}}
    vocabulary, rng = small_vocabulary(), random.Random(SEED)
    index = compile_constraint(
        json_schema_constraint({"type": "string", "format": name}), vocabulary
    )
    checks = [make_check(schema, draft) for draft in ("2020-12", "7", "4")]
    num_texts = 0
    for _ in range(40):
        text = draw(index, vocabulary, rng, max_tokens=120)
        if text is not None:
            num_texts += 1
            assert [check(f"[{text.decode()}]") for check in checks] == [None] * 3, text
    assert num_texts >= 1  # few random e-mail addresses end in time


def test_a_format_that_no_draft_has_is_checked_by_our_pattern() -> None:
    check = make_check({"type": "string", "format": "uuid4"}, "7")
    assert check('"12345678-1234-4234-9234-123456789abc"') is None
    assert check('"12345678-1234-1234-9234-123456789abc"') is not None
    assert check('"12345678-1234-4234-9234-123456789abc\\n"') is not None


def _multiplying(num_levels: int) -> dict[str, Any]:
    levels: dict[str, Any] = {
        f"a{i}": {"anyOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(num_levels)
    }
    levels[f"a{num_levels}"] = {"type": "null"}
    return {"$ref": "#/$defs/a0", "$defs": levels, "uniqueItems": True}


def test_a_check_that_takes_too_long_is_stopped_and_holds_nobody_up() -> None:
    found = plan(_multiplying(60))
    assert found.check("null") is None
    start = time.monotonic()
    said = found.check("1")
    assert said is not None and "longer than 1 s" in said
    assert time.monotonic() - start < 10


def test_a_validator_that_takes_too_long_to_build_is_refused() -> None:
    patterns = {f"p{i}": {"pattern": f"^(\\w{{1,300}}){{1,9}}x{i}$"} for i in range(900)}
    with pytest.raises(ConstraintError, match=r"costly|regex"):
        plan({"properties": patterns, "uniqueItems": True})


TREE = {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}


@pytest.mark.parametrize(
    ("schema", "is_cheap"),
    [
        ({"uniqueItems": True}, True),
        ({"properties": {f"p{i}": {"type": "string"} for i in range(900)}}, True),
        ({"$ref": "#/$defs/node", "$defs": {"node": {"properties": {"l": TREE, "r": TREE}}}}, True),
        ({"$ref": "#"}, True),
        ({"$ref": "#/$defs/node", "$defs": {"node": {"anyOf": [{"items": TREE}, {"items": TREE}]}}},
         False),
        ({"$ref": "#/$defs/node", "$defs": {"node": {"items": TREE, "contains": TREE}}}, False),
        (_multiplying(40), False),
        (_multiplying(4), True),
    ],
)  # fmt: skip
def test_schemas_that_multiply_visits_are_told_from_those_that_do_not(
    schema: Any, is_cheap: bool
) -> None:
    assert is_cheap_to_run(settle(schema)) == is_cheap


def test_large_schemas_and_counting_regexes_are_costly_to_build() -> None:
    assert is_cheap_to_build({"pattern": "^[a-z]{1,300}$"})
    assert not is_cheap_to_build({"allOf": [{"pattern": f"^{i}[a-z]{{1,300}}$"} for i in range(9)]})
    assert not is_cheap_to_build({"enum": list(range(10_001))})


# --- two orders -----------------------------------------------------------------------------------

LOOSE = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "id": {"type": "string"}, "b": {"type": "null"}},
    "required": ["id"],
    "additionalProperties": False,
    "not": {"required": ["never"]},
}


@pytest.mark.parametrize(
    ("text", "is_accepted"),
    [
        ('{"a": 1, "id": "x", "b": null}', True),
        ('{"id": "x", "a": 1, "b": null}', True),
        ('{"id": "x", "b": null, "a": 1}', True),
        ('{"b": null, "id": "x"}', False),
        ('{"a": 1}', False),
        ('{"id": "x", "c": 1}', False),
        ('{"id": "x", "a": "1"}', False),
    ],
)
def test_a_loosened_schema_takes_what_is_required_first_and_the_rest_as_it_comes(
    text: str, is_accepted: bool
) -> None:
    index = compile_constraint(json_schema_constraint(LOOSE), small_vocabulary())
    assert accepts(index, small_vocabulary(), text) == is_accepted
    if is_accepted:
        assert index.check(text) is None


def test_a_schema_of_tier_grammar_keeps_its_one_order() -> None:
    schema = {key: value for key, value in LOOSE.items() if key != "not"}
    index = compile_constraint(json_schema_constraint(schema), small_vocabulary())
    assert index.tier == "grammar"
    assert accepts(index, small_vocabulary(), '{"a": 1, "id": "x"}')
    assert not accepts(index, small_vocabulary(), '{"id": "x", "a": 1}')


def test_names_with_marks_of_regexes_are_names_in_either_order() -> None:
    names = ["a.b", "c*", "(d)", "e\\f", "g/h", "i j", "k-l", "$m", "é", '"n"']
    properties = {name: {"type": "integer"} for name in names}
    schema = {"type": "object", "properties": properties, "not": {"required": ["x"]}}
    closed = {**schema, "additionalProperties": False}
    index = compile_constraint(json_schema_constraint(closed), small_vocabulary())
    text = json.dumps({name: 1 for name in reversed(names)}, ensure_ascii=False)
    assert accepts(index, small_vocabulary(), text)
    assert not accepts(index, small_vocabulary(), '{"aXb": 1}')


# --- laws over random texts -----------------------------------------------------------------------

CHECKED = [
    {"type": "array", "items": {"enum": [1, 2, 3, 4]}, "uniqueItems": True, "maxItems": 3},
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}},
     "additionalProperties": False, "dependentRequired": {"a": ["b"]}},
    {"type": "object",
     "properties": {"k": {"enum": ["p", "q"]}, "v": {"type": ["integer", "null"]}},
     "required": ["k", "v"], "additionalProperties": False,
     "if": {"properties": {"k": {"const": "p"}}}, "then": {"properties": {"v": {"type": "null"}}}},
    {"oneOf": [{"type": "integer", "minimum": 0}, {"type": "integer", "maximum": 5}]},
    {"enum": ["ab", "abc", "ba", "c"], "pattern": "^(?!ab)"},
    {"type": "array", "items": {"type": "boolean"}, "contains": {"const": True}, "maxItems": 3},
]  # fmt: skip


@pytest.mark.parametrize("schema", CHECKED, ids=json.dumps)
def test_the_check_agrees_with_another_validator_on_whatever_the_grammar_lets_through(
    schema: Any,
) -> None:
    print("seed", SEED)
    vocabulary, rng = small_vocabulary(), random.Random(SEED)
    index = compile_constraint(json_schema_constraint(schema), vocabulary)
    oracle = jsonschema.Draft202012Validator(schema)
    verdicts = set()
    for _ in range(60):
        text = draw(index, vocabulary, rng, max_tokens=80)
        if text is not None:
            said = index.check(text.decode())
            if said is None or "twice" not in said:
                assert (said is None) == oracle.is_valid(json.loads(text)), text
                verdicts.add(said is None)
    assert True in verdicts


def test_equal_schemas_share_what_was_compiled() -> None:
    one = {"title": "a", "type": "array", "uniqueItems": True}
    same = {"uniqueItems": True, "type": "array", "description": "b"}
    assert json_schema_constraint(one) == json_schema_constraint(same)


def test_other_constraints_are_of_tier_grammar() -> None:
    index = compile_constraint(regex_constraint("a+"), small_vocabulary())
    assert index.tier == "grammar"
    assert index.check("aa") is None and index.check("b") is not None


# --- outlines_core --------------------------------------------------------------------------------


def test_an_outlines_core_index_that_would_not_end_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("litellm_mlx.grammar.core_compiler.LIMIT_S", 0.2)
    bomb = regex_constraint("(([a-z]{1,200} ){1,40}[0-9]{1,50}){1,20}", "outlines_core")
    with pytest.raises(ConstraintError, match=r"longer than 0.2 s"):
        compile_constraint(bomb, small_vocabulary())


def test_an_outlines_core_index_that_would_take_all_memory_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("litellm_mlx.grammar.core_compiler.LIMIT_BYTES", 200 * 2**20)
    bomb = regex_constraint("(([a-z]{1,200} ){1,40}[0-9]{1,50}){1,20}", "outlines_core")
    with pytest.raises(ConstraintError, match=r"GiB of memory|longer than"):
        compile_constraint(bomb, small_vocabulary())
