"""A bounded part of the search for texts that a grammar accepts and its schema forbids."""

from __future__ import annotations

import itertools
import json
import random

import jsonschema
import pytest
from pydantic import TypeAdapter

from tests.differential import Tally, search
from tests.differential_material import (
    CLASSES,
    FRAGMENTS,
    MODELS,
    bounded,
    combined,
    formatted,
    nested,
    patterned,
)
from tests.differential_oracle import Oracle, ecma
from tests.grammar_sampling import small_vocabulary

SEED = 20261128


def test_no_grammar_accepts_what_its_schema_forbids() -> None:
    """And the final validation withholds nothing that is valid; over 15,000 pairs from one seed."""
    print("seed", SEED)
    rng, tally = random.Random(SEED), Tally()
    adapters = [TypeAdapter(model) for model in MODELS]
    cases = [
        *((schema, None) for schema in rng.sample(list(patterned()), 200)),
        *((schema, None) for schema in rng.sample(list(bounded()), 60)),
        *((schema, None) for schema in rng.sample(list(combined()), 240)),
        *((schema, None) for schema in itertools.islice(nested(rng), 60)),
        *rng.sample(list(formatted()), 30),
        *((adapter.json_schema(), adapter) for adapter in rng.sample(adapters, 30)),
    ]
    for schema, adapter in cases:
        search(schema, small_vocabulary(), rng, tally, number=10, num_draws=2, adapter=adapter)
    assert tally.invalid_accepted == []
    assert tally.withheld == []
    assert tally.pairs > 15_000 and tally.valid > 5_000
    assert tally.rejected.total() < 0.15 * tally.valid


def test_the_material_has_every_keyword() -> None:
    from litellm_mlx.grammar.json_schema import KEYWORDS

    said = json.dumps(FRAGMENTS)
    # Older drafts' names of what is there.
    older = {"additionalItems", "definitions", "dependencies", "id"}
    older |= {"$recursiveAnchor", "$recursiveRef"}
    assert [word for word in sorted(KEYWORDS - older) if f'"{word}":' not in said] == []


@pytest.mark.parametrize("pattern", CLASSES)
def test_the_oracles_regexes_are_pythons_where_both_mean_the_same(pattern: str) -> None:
    """A rewritten class still matches plain characters as Python's own does."""
    own = jsonschema.Draft202012Validator({"pattern": f"^{pattern}$"})
    oracle = Oracle({"pattern": f"^{pattern}$"})
    for char in '"\\/\n\t\x01abzAZ09 ,:<|_^!#':
        if char != "\n":  # which Python lets stand before its `$`
            assert own.is_valid(char) == oracle.is_valid(json.dumps(char)), char
    assert ecma("a$") == r"a\Z"
