"""Schemas as generators write them: references by any name, regexes that names use up."""

from __future__ import annotations

import random
from typing import Any

import pytest

from litellm_mlx.grammar.compiler import compile_constraint
from litellm_mlx.grammar.constraint import json_schema_constraint
from tests.grammar_sampling import draw, small_vocabulary
from tests.mlx.test_patterns import accepts, plan

NAMES = (
    *("Page[Item]", "List<string>", "First Name", "Größe", "Page«Item»", "Foo`1", "a%20b", "a%b"),
    *(
        "100%",
        "a~b",
        "a/b",
        "a b%25",
        "$x",
        "a^b",
        "a|b",
        'a"b',
        "a\\b",
        "a#b",
        "a?b",
        "日本",
        "😀",
    ),
)
UNIQUE = {"type": "array", "items": {}, "uniqueItems": True}


def referring(reference: str, definitions: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An object whose `a` is what the reference names."""
    properties = {"a": {"$ref": reference}, "b": UNIQUE}
    return {"type": "object", "properties": properties, "$defs": definitions, **more}


def takes_integers_only(schema: dict[str, Any]) -> bool:
    """In both tiers: with something that only the check can do, and without."""
    plain = {**schema, "properties": {"a": schema["properties"]["a"]}}
    plans = [plan(plain), plan(schema)]
    assert [made.tier for made in plans] == ["grammar", "grammar+check"]
    return all(accepts(made, {"a": 1}) and not accepts(made, {"a": "x"}) for made in plans)


@pytest.mark.parametrize("name", NAMES)
def test_a_reference_to_a_name_that_is_no_uri_is_resolved_as_written(name: str) -> None:
    assert takes_integers_only(referring(f"#/$defs/{name}", {name: {"type": "integer"}}))


INTEGER = {"type": "integer"}


@pytest.mark.parametrize(
    "schema",
    [
        referring("http://x.org/item", {"i": {"$id": "http://x.org/item", **INTEGER}}),
        referring("item", {"i": {"$id": "item", **INTEGER}}, **{"$id": "http://x.org/root"}),
        referring("item#/$defs/k", {"i": {"$id": "item", "$defs": {"k": INTEGER}}}),
        referring("#it", {"i": {"$anchor": "it", **INTEGER}}),
        referring("#it", {"i": {"$dynamicAnchor": "it", **INTEGER}}),
        referring("#it", {"i": {"$id": "#it", **INTEGER}}),
        referring("#/$defs/i", {"i": INTEGER}, **{"$id": "Page[Item]"}),
        referring("#/$defs/i", {"i": {"$id": "Item Type", **INTEGER}}),
        # By the draft it starts at `app`, where it leads nowhere.
        referring(
            "#/$defs/app/k", {"app": {"$id": "app", "k": {"$ref": "#/$defs/i"}}, "i": INTEGER}
        ),
    ],
)
def test_a_reference_by_id_or_anchor_leads_where_the_drafts_say(schema: Any) -> None:
    assert takes_integers_only(schema)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("^score$", ["score"]),
        ("^(a|b)$", ["a", "b"]),
        ("^[ab]$", ["a", "b"]),
        ("^ab?$", ["a", "ab"]),
        ("^a{1,2}$", ["a", "aa"]),
    ],
)
@pytest.mark.parametrize("is_listed", [True, False])
def test_a_regex_that_the_names_use_up_leads_into_no_dead_end(
    pattern: str, names: list[str], is_listed: bool
) -> None:
    """Each text that is drawn ends, and the names keep what both keywords ask of them."""
    schema = {
        "type": "object",
        "properties": {name: {"minimum": 0} for name in names} if is_listed else {},
        "required": names,
        "additionalProperties": False,
        "patternProperties": {pattern: {"type": "integer", "maximum": 9}},
    }
    made = plan(schema)
    assert made.tier == "grammar"
    assert accepts(made, dict.fromkeys(names, 7))
    assert not accepts(made, dict.fromkeys(names, "x"))
    assert accepts(made, dict.fromkeys(names, -1)) is not is_listed
    vocabulary = small_vocabulary()
    index = compile_constraint(json_schema_constraint(schema), vocabulary)
    for seed in range(20):
        assert draw(index, vocabulary, random.Random(seed)) is not None


def test_a_regex_that_leaves_names_over_stays() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {}},
        "patternProperties": {"^a|b$": INTEGER},
        "additionalProperties": False,
    }
    assert accepts(plan(schema), {"a": 1, "xb": 2}) and not accepts(plan(schema), {"a": "x"})
