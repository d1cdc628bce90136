"""A constrained text is complete when its tokens are used up, however few they are."""

from __future__ import annotations

import json
import random

import jsonschema
import pytest

from litellm_mlx.engine.budget import Budget
from litellm_mlx.errors import BudgetError
from litellm_mlx.grammar.closing import Path, first_ending
from litellm_mlx.grammar.compiler import compile_constraint
from litellm_mlx.grammar.constraint import JSON_OBJECT, json_schema_constraint
from litellm_mlx.grammar.guide import Guide
from litellm_mlx.grammar.structure import structure_constraint
from litellm_mlx.grammar.thinking import ThinkingGuide
from litellm_mlx.types import Constraint, Thinking
from tests.closing_schemas import SCHEMAS, VOCABULARY, closed, compiled
from tests.grammar_sampling import allowed_tokens, byte_ids
from tests.mlx.test_tools import planned
from tests.tool_families import FAMILIES, vocabulary_of


def run(constraint: Constraint, max_tokens: int, seed: int, *, guide: Guide | None = None) -> bytes:
    """Sample anything that is allowed, as the engine does, and close by the plan."""
    index = compiled(constraint)
    guide = guide or index.guide()
    budget = Budget(guide, constraint, max_tokens, first_ending(index, constraint))
    rng, tokens = random.Random(seed), list[int]()
    while not guide.is_finished and len(tokens) < max_tokens:
        token = rng.choice(allowed_tokens(guide, VOCABULARY))
        if not budget.admits(guide, token, max_tokens - len(tokens) - 1):
            tokens += replay_tokens(guide, budget.plan)
            break
        guide.advance(token)
        tokens.append(token)
    assert len(tokens) <= max_tokens
    assert guide.is_accepting
    return b"".join(map(VOCABULARY.token_bytes, tokens))


def replay_tokens(guide: Guide, plan: Path | None) -> Path:
    assert plan is not None
    for token in plan:
        guide.advance(token)
    return plan


@pytest.mark.parametrize("keyword", SCHEMAS)
def test_a_text_is_complete_whatever_the_budget(keyword: str) -> None:
    constraint = json_schema_constraint(SCHEMAS[keyword])
    minimum = len(first_ending(compiled(constraint), constraint) or ())
    for max_tokens in (minimum, minimum + 1, minimum + 7, 90, 300):
        if max_tokens >= minimum:
            text = run(constraint, max_tokens, seed=max_tokens)
            jsonschema.validate(json.loads(text), SCHEMAS[keyword])


def test_a_schema_that_suddenly_asks_for_much_is_noticed_in_time() -> None:
    """An optional property whose only value has 40 required properties, far from the end."""
    large = closed({f"required_property_{i}": {"type": "string"} for i in range(40)})
    schema = {"type": "array", "items": {"anyOf": [{"type": "boolean"}, large]}}
    constraint = json_schema_constraint(schema)
    for seed in range(4):
        jsonschema.validate(json.loads(run(constraint, 2_500, seed)), schema)


def test_a_thinking_block_is_closed_in_time_too() -> None:
    constraint = json_schema_constraint(SCHEMAS["required"])
    end = tuple(byte_ids(VOCABULARY, "]]"))
    inner = compiled(constraint).guide()
    guide = ThinkingGuide(inner, Thinking(end), VOCABULARY)
    text = run(constraint, 60, seed=3, guide=guide)
    thought, _, answer = text.partition(b"]]")
    assert len(thought) > 10
    jsonschema.validate(json.loads(answer), SCHEMAS["required"])


def test_a_budget_below_the_minimum_is_refused_with_both_counts() -> None:
    index = compiled(json_schema_constraint(SCHEMAS["required"]))
    constraint = json_schema_constraint(SCHEMAS["required"])
    ending = first_ending(index, constraint)
    assert ending is not None
    with pytest.raises(BudgetError, match=rf"{len(ending)} tokens.* {len(ending) - 1};"):
        Budget(index.guide(), constraint, len(ending) - 1, ending)


def test_any_object_ends_at_once() -> None:
    assert len(first_ending(compiled(JSON_OBJECT), JSON_OBJECT) or ()) <= 2


def test_a_call_whose_ending_is_hard_to_find_is_begun_all_the_same() -> None:
    """Free text may end anywhere, which is no reason to end it before the call that comes."""
    parameters = closed({"url": {"type": "string", "format": "uri"}, "prompt": {"type": "string"}})
    tool = {"type": "function", "function": {"name": "fetch", "parameters": parameters}}
    hermes = next(family for family in FAMILIES if family.name == "hermes")
    vocabulary = vocabulary_of(hermes.name)
    constraint = structure_constraint(planned(hermes.form, tools=[tool]).root)
    index = compile_constraint(constraint, vocabulary)
    guide, max_tokens = index.guide(), 120
    budget = Budget(guide, constraint, max_tokens, first_ending(index, constraint))
    assert budget.plan == ()
    call = vocabulary.ll_tokenizer.tokenize_str('<tool_call>\n{"name": "fetch", "arguments": ')
    for place, token_id in enumerate(call):
        assert budget.admits(guide, token_id, max_tokens - place - 1)
        guide.advance(token_id)
    assert budget.plan and guide.ends_with(budget.plan)
