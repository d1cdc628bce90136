"""The benchmark's own path over schemas of our own, one or more for each keyword of JSON Schema.

The numbers may only get better: what passes today must pass tomorrow, and what the grammar alone
holds today must not fall back to the check.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from litellm_mlx.grammar.drafts import subschemas
from litellm_mlx.grammar.json_schema import KEYWORDS
from tests.grammar_sampling import small_vocabulary

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data" / "schemas.jsonl"
LINES: list[dict[str, Any]] = [json.loads(line) for line in DATA.read_text().splitlines()]

MIN_SCHEMAS = 87
MIN_TIER_GRAMMAR = 56


@pytest.fixture(scope="module")
def maskbench() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import maskbench  # type: ignore[import-not-found]  # a script, not a package
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    module: ModuleType = maskbench
    return module


@pytest.mark.parametrize("line", LINES, ids=lambda line: line["name"])
def test_every_instance_is_judged_right(maskbench: ModuleType, line: dict[str, Any]) -> None:
    result = maskbench.run_schema(line, small_vocabulary())
    assert result.is_passing, result.reasons


def test_the_grammar_alone_holds_as_many_as_ever(maskbench: ModuleType) -> None:
    results = [maskbench.run_schema(line, small_vocabulary()) for line in LINES]
    figures = maskbench.summary(results)
    assert list(figures) == [
        *("schemas", "passing", "refused", "valid_rejected", "invalid_accepted"),
        *("tier_grammar", "tier_check", "ttfm_us", "tbm_us"),
    ]
    assert figures["schemas"] >= MIN_SCHEMAS
    assert figures["passing"] == figures["schemas"]
    assert figures["tier_grammar"] >= MIN_TIER_GRAMMAR
    assert list(figures["ttfm_us"]) == ["p50", "p99", "max"]
    assert list(figures["tbm_us"]) == ["avg", "p50", "p99", "max"]


def test_every_keyword_has_a_schema() -> None:
    used = {
        keyword
        for line in LINES
        if not isinstance(line["schema"], bool)
        for _, schema in subschemas(line["schema"])
        for keyword in schema
    }
    assert KEYWORDS - used == {"$recursiveAnchor"}  # says nothing in a document of one resource


def test_each_schema_has_a_name_of_its_own() -> None:
    names = [line["name"] for line in LINES]
    assert len(set(names)) == len(names)


def test_an_instance_that_comes_through_wrongly_is_counted(maskbench: ModuleType) -> None:
    tests = [{"valid": False, "data": "a"}, {"valid": True, "data": 1}, {"valid": True, "data": ""}]
    line = {"name": "wrong labels", "schema": {"type": "string"}, "tests": tests}
    result = maskbench.run_schema(line, small_vocabulary())
    assert (result.invalid_accepted, result.valid_rejected) == (1, 1)
    refused = maskbench.run_schema(
        {"name": "no schema", "schema": {"type": 3}, "tests": []}, small_vocabulary()
    )
    assert refused.tier == "refused" and not refused.is_passing
    assert maskbench.summary([result, refused])["refused"] == 1
