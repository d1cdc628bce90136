"""Decimals within bounds: each that a person would write can be written, and no other."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest

from litellm_mlx.grammar.matcher import NotCompiledError
from tests.mlx.test_patterns import accepts_text, plan

OPERATORS = {
    "minimum": Decimal.__ge__,
    "exclusiveMinimum": Decimal.__gt__,
    "maximum": Decimal.__le__,
    "exclusiveMaximum": Decimal.__lt__,
}


def a_bound(rng: random.Random) -> float:
    return round(rng.choice([-1, 1]) * rng.choice([1, 20, 300]) * rng.random(), rng.randint(0, 3))


def near(rng: random.Random, *bounds: float) -> set[str]:
    """Numbers at and around the bounds, and beginnings of them, as people and programs write."""
    found = {0.0, 1.0, *(a_bound(rng) for _ in range(8))}
    for bound in bounds:
        for places in range(5):
            step = 10**-places
            cut = int(bound / step) * step
            found |= {round(value, places) for value in (bound, cut, bound + step, bound - step)}
    texts = {f"{value:.6f}".rstrip("0") for value in found}
    texts = {text + "0" if text.endswith(".") else text for text in texts}
    return {t for text in texts for t in (text, text.removesuffix(".0")) if t not in ("-0", "-0.0")}


@pytest.mark.parametrize("seed", range(8))
def test_each_decimal_within_the_bounds_can_be_written_and_no_other(seed: int) -> None:
    """Held against `decimal`, for random bounds of every kind."""
    rng, num_asked = random.Random(seed), 0
    for _ in range(30):
        low, high = sorted((a_bound(rng), a_bound(rng)))
        schema: dict[str, Any] = {"type": "number"}
        schema |= {rng.choice(["minimum", "exclusiveMinimum"]): low} if rng.random() < 0.8 else {}
        schema |= {rng.choice(["maximum", "exclusiveMaximum"]): high} if rng.random() < 0.8 else {}
        if low == high:
            continue
        try:
            made = plan(schema)
        except NotCompiledError:
            continue
        assert made.tier == "grammar"
        for text in near(rng, low, high):
            bounds = ((name, Decimal(repr(schema[name]))) for name in OPERATORS if name in schema)
            is_within = all(OPERATORS[name](Decimal(text), bound) for name, bound in bounds)
            assert accepts_text(made, text) == is_within, (seed, schema, text)
            num_asked += 1
    assert num_asked > 300


def test_no_other_number_comes_in_in_draft_4() -> None:
    """That draft has no `const`, and what it has not says nothing."""
    schema = {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 0, "maximum": 0.95}
    assert accepts_text(plan(schema), "0.9") and not accepts_text(plan(schema), "-1")


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, "0.999"),
        ({"type": ["number", "null"], "minimum": 0, "maximum": 0.95}, "0.9"),
        ({"minimum": 0, "maximum": 12.75, "multipleOf": 0.05}, "12.7"),
        ({"type": "number", "maximum": 0}, "0.0"),
        ({"type": "number", "anyOf": [{"maximum": 0.95}, {"minimum": 7}]}, "0.9"),
        ({"$ref": "#/$defs/p", "$defs": {"p": {"type": "number", "maximum": 0.95}}}, "0.9"),
    ],
)
def test_a_beginning_of_a_bounds_digits_can_be_written(schema: Any, text: str) -> None:
    assert accepts_text(plan(schema), text)
