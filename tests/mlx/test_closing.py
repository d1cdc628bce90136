"""Endings: from anywhere in a constrained text, a short way to a point where it may end."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest

from litellm_mlx.grammar.closing import Path, first_ending, shortest_ending
from litellm_mlx.grammar.compiler import Index
from litellm_mlx.grammar.constraint import (
    choice_constraint,
    grammar_constraint,
    json_schema_constraint,
    regex_constraint,
)
from litellm_mlx.grammar.guide import Guide
from litellm_mlx.grammar.regex_example import regex_example
from litellm_mlx.grammar.structure import (
    FreeText,
    Marker,
    Pattern,
    Repeat,
    Seq,
    Text,
    json_part,
    structure_constraint,
)
from litellm_mlx.types import Backend, Constraint
from tests.closing_schemas import SCHEMAS, VOCABULARY, compiled
from tests.grammar_sampling import allowed_tokens, byte_ids

BACKENDS: tuple[Backend, ...] = ("llguidance", "outlines_core")


def replay(guide: Guide, path: Path) -> bytes:
    """The ending's text; every token of it was allowed where it came."""
    guide, text = guide.copy(), b""
    for token in path:
        assert token in allowed_tokens(guide, VOCABULARY)
        guide.advance(token)
        text += VOCABULARY.token_bytes(token)
    assert guide.is_accepting
    return text


def assert_ends(index: Index, constraint: Constraint) -> bytes:
    path = shortest_ending(index.guide(), constraint)
    assert path is not None
    return replay(index.guide(), path)


# --- from the beginning -----------------------------------------------------------------------


@pytest.mark.parametrize("keyword", SCHEMAS)
def test_an_ending_is_found_from_the_beginning(keyword: str) -> None:
    constraint = json_schema_constraint(SCHEMAS[keyword])
    jsonschema.validate(json.loads(assert_ends(compiled(constraint), constraint)), SCHEMAS[keyword])


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (SCHEMAS["required"], '{"a": "", "b": 0, "c": null}'),
        (SCHEMAS["optional before required"], '{"must": ""}'),
        (SCHEMAS["recursive"], '{"value": 0, "kids": []}'),
        (SCHEMAS["date-time"], '"2000-01-01T00:00:00Z"'),
        ({"type": "object"}, "{}"),
    ],
)
def test_what_is_found_is_short(schema: dict[str, Any], text: str) -> None:
    constraint = json_schema_constraint(schema)
    assert assert_ends(compiled(constraint), constraint).decode() == text


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("keyword", ["required", "nested", "maxLength", "enum"])
def test_both_backends_have_endings(backend: Backend, keyword: str) -> None:
    constraint = json_schema_constraint(SCHEMAS[keyword], backend)
    jsonschema.validate(json.loads(assert_ends(compiled(constraint), constraint)), SCHEMAS[keyword])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pattern", ["a+b", r"[0-9]{3}-[a-z]{8}\.", r"(?:x|yy)*z{4}", "a(ba)*c"])
def test_a_regex_has_an_ending(backend: Backend, pattern: str) -> None:
    constraint = regex_constraint(pattern, backend)
    assert_ends(compiled(constraint), constraint)


@pytest.mark.parametrize("backend", BACKENDS)
def test_places_that_only_look_alike_are_not_taken_for_one(backend: Backend) -> None:
    choice = choice_constraint(["yes, and for the following reasons, which are many"], backend)
    assert assert_ends(compiled(choice), choice).startswith(b"yes, and for")


def test_choices_and_grammars_have_endings() -> None:
    choice = choice_constraint(["one", "two"])
    assert assert_ends(compiled(choice), choice) in (b"one", b"two")
    grammar = grammar_constraint('start: "a" ("b" "a")* /[^;]/+ "; the end"')
    assert assert_ends(compiled(grammar), grammar).endswith(b"; the end")


def test_a_structure_ends_through_its_free_text_and_markers() -> None:
    fields = Seq(
        (
            FreeText(("\n\n[[ ## answer ## ]]\n",)),
            Text("\n\n[[ ## answer ## ]]\n"),
            json_part(SCHEMAS["required"]),
            Text("\n\n"),
            Repeat(Seq((Marker("<think>"), Pattern("[0-9]{4}"))), 1, 2),
        )
    )
    constraint = structure_constraint(fields)
    text = assert_ends(compiled(constraint), constraint).decode()
    assert text.startswith('\n\n[[ ## answer ## ]]\n{"a": "", "b": 0, "c": null}\n\n<think>')


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "string"}, "minItems": 300},
        {"type": "array", "items": SCHEMAS["required"], "minItems": 60},
        {"type": "array", "items": {"type": "array", "minItems": 20}, "minItems": 12},
        {"type": "string", "pattern": "^([ab]{3}-){100}$"},
    ],
)
def test_what_is_required_hundreds_of_times_has_an_ending(schema: dict[str, Any]) -> None:
    constraint = json_schema_constraint(schema)
    jsonschema.validate(json.loads(assert_ends(compiled(constraint), constraint)), schema)


def test_what_cannot_be_found_in_time_is_none_and_the_time_is_kept() -> None:
    constraint = json_schema_constraint({"type": "array", "minItems": 100_000, "items": {}})
    guide = compiled(constraint).guide()
    assert shortest_ending(guide, constraint, max_points=300) is None
    assert shortest_ending(guide, constraint, max_search_s=0.0) is None


def test_a_limit_is_kept() -> None:
    constraint = json_schema_constraint(SCHEMAS["required"])
    index = compiled(constraint)
    path = shortest_ending(index.guide(), constraint)
    assert path is not None
    again = shortest_ending(index.guide(), constraint, limit=len(path))
    assert again is not None and len(again) == len(path)
    assert shortest_ending(index.guide(), constraint, limit=3) is None


@pytest.mark.parametrize(
    ("constraint", "text"),
    [
        (json_schema_constraint(SCHEMAS["enum"]), b'"x"'),
        (choice_constraint(["a much longer one", "short"]), b"short"),
    ],
)
def test_before_a_refusal_the_shortest_is_looked_for(constraint: Constraint, text: bytes) -> None:
    index = compiled(constraint)
    assert replay(index.guide(), first_ending(index, constraint, limit=1) or ()) == text
    assert replay(index.guide(), first_ending(index, constraint) or ()) == text


# --- from anywhere ----------------------------------------------------------------------------


@pytest.mark.parametrize("keyword", SCHEMAS)
def test_an_ending_is_found_after_any_beginning(keyword: str) -> None:
    """Up to 30 random tokens, five times; a few of the points are deep inside patterns."""
    constraint = json_schema_constraint(SCHEMAS[keyword])
    index = compiled(constraint)
    for seed in range(5):
        rng, guide, text = random.Random(seed), index.guide(), b""
        for _ in range(30):
            token = rng.choice(allowed_tokens(guide, VOCABULARY))
            if token in VOCABULARY.stop_token_ids:
                break
            guide.advance(token)
            text += VOCABULARY.token_bytes(token)
        path = shortest_ending(guide, constraint)
        assert path is not None, (seed, text)
        text += replay(guide, path)
        jsonschema.validate(json.loads(text), SCHEMAS[keyword])


def test_an_ending_keeps_to_the_limits_of_numbers_and_nesting() -> None:
    constraint = json_schema_constraint({})
    deep = compiled(constraint).guide()
    for token in byte_ids(VOCABULARY, "[" * 32 + "1" * 20):
        deep.advance(token)
    path = shortest_ending(deep, constraint)
    assert path is not None and replay(deep, path) == b"]" * 32
    assert not deep.ends_with(byte_ids(VOCABULARY, "0" + "]" * 32))
    assert not deep.ends_with(byte_ids(VOCABULARY, ", []" + "]" * 32))
    flat = compiled(constraint).guide()
    for token in byte_ids(VOCABULARY, '["[{'):
        flat.advance(token)
    assert flat.ends_with(byte_ids(VOCABULARY, '[[[\\"{"' + ', {"[": []}' * 40 + "]"))
    assert not flat.ends_with(byte_ids(VOCABULARY, '"' + ", {}" * 40 + ", " + "[" * 32 + "]" * 33))


@pytest.mark.parametrize("backend", BACKENDS)
def test_ends_with_is_what_advancing_shows(backend: Backend) -> None:
    index = compiled(json_schema_constraint(SCHEMAS["required"], backend))
    guide = index.guide()
    for token in VOCABULARY.ll_tokenizer.tokenize_str('{"a": "x'):
        guide.advance(token)
    whole = VOCABULARY.ll_tokenizer.tokenize_str('", "b": 7, "c": null}')
    for end in range(len(whole)):
        assert not guide.ends_with(whole[:end])
        assert guide.allows(whole[:end])
    assert guide.ends_with(whole)
    assert not guide.allows([*whole, *byte_ids(VOCABULARY, " ")])
    copy = guide.copy()
    copy.advance(whole[0])
    assert guide.ends_with(whole) and copy.ends_with(whole[1:])


def test_a_copy_of_the_other_backends_guide_does_not_retrace_loops() -> None:
    guide = compiled(json_schema_constraint({"type": "string"}, "outlines_core")).guide()
    for token in byte_ids(VOCABULARY, '"' + "ab" * 500):
        guide.advance(token)
    copy = guide.copy()
    assert len(copy._guide._path) == len(guide._guide._path) <= 3  # type: ignore[attr-defined]
    assert allowed_tokens(copy, VOCABULARY) == allowed_tokens(guide, VOCABULARY)


# --- examples ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    [
        r"^\d{4}-\d\d$",
        "a|bcd",
        "[^a-z]+x?",
        r"(?:[\w.]+@)\w{2,4}",
        r"[\x00-\x1f]",
        r"(a{2}){3}",
        ".",
    ],
)
def test_an_example_matches_its_pattern(pattern: str) -> None:
    import re

    example = regex_example(pattern)
    assert example is not None and re.search(pattern, example)


@pytest.mark.parametrize("pattern", ["(", r"\p{L}", "a{100000}", "(a)\\1", "(?<=a)b"])
def test_where_there_is_no_example_there_is_none(pattern: str) -> None:
    assert regex_example(pattern) is None
