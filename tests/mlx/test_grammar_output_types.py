"""Outlines' output types as constraints."""

from __future__ import annotations

import enum
from typing import Any, Literal

import pytest
from outlines.types import CFG, Choice, JsonSchema, Regex, either, regex
from pydantic import BaseModel

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.compiler import compile_constraint
from litellm_mlx.grammar.constraint import JSON_OBJECT, json_schema_constraint
from litellm_mlx.grammar.output_types import output_type_constraint
from litellm_mlx.types import Backend
from tests.grammar_sampling import accepts, small_vocabulary


class Person(BaseModel):
    name: str
    age: int


class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"


@pytest.mark.parametrize("backend", ["llguidance", "outlines_core"])
@pytest.mark.parametrize(
    ("output_type", "good", "bad"),
    [
        (Regex("[0-9]{3}"), "123", "12"),
        (regex("a") + "b", "ab", "a"),
        (either("cat", "dog"), "dog", "do"),
        (Choice(["yes", "no"]), "no", "n"),
        (Literal["x", "y"], "y", "z"),
        (Size, "s", "SMALL"),
        (int, "-12", "1.5"),
        (list[int], "[1, 2]", "[1,2]"),
    ],
)
def test_terms_and_types_compile(output_type: Any, good: str, bad: str, backend: Backend) -> None:
    vocabulary = small_vocabulary()
    index = compile_constraint(output_type_constraint(output_type, backend), vocabulary)
    assert accepts(index, vocabulary, good)
    assert not accepts(index, vocabulary, bad)


def test_models_are_their_schema() -> None:
    expected = json_schema_constraint(Person.model_json_schema())
    assert output_type_constraint(Person) == expected
    assert output_type_constraint(JsonSchema(Person)) == expected
    assert output_type_constraint(dict) == JSON_OBJECT


def test_grammars_go_to_llguidance() -> None:
    vocabulary = small_vocabulary()
    index = compile_constraint(output_type_constraint(CFG('start: "a" "b"*')), vocabulary)
    assert accepts(index, vocabulary, "abb") and not accepts(index, vocabulary, "b")


@pytest.mark.parametrize("output_type", [object(), bytes, JsonSchema({}, whitespace_pattern=" *")])
def test_what_has_no_term_is_refused(output_type: Any) -> None:
    with pytest.raises(ConstraintError):
        output_type_constraint(output_type)
