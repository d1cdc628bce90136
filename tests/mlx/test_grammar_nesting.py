"""A recursive schema comes to an end, whatever the sampler prefers."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from litellm_mlx.grammar.compiler import compile_constraint
from litellm_mlx.grammar.constraint import json_schema_constraint
from litellm_mlx.grammar.nesting_limit import MAX_DEPTH
from litellm_mlx.grammar.vocabulary import Vocabulary
from tests.grammar_sampling import accepts, draw, small_vocabulary

LIST_OF_CHILDREN = {
    "type": "object",
    "properties": {"children": {"type": "array", "items": {"$ref": "#"}, "maxItems": 1}},
    "required": ["children"],
    "additionalProperties": False,
}
OPTIONAL_CHILD = {
    "type": "object",
    "properties": {"child": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
    "required": ["child"],
    "additionalProperties": False,
}


def opening(allowed: Sequence[int], vocabulary: Vocabulary) -> Sequence[int]:
    """Prefer tokens that open a container and do not close one."""
    tokens = {i: vocabulary.token_bytes(i) for i in allowed}
    return [i for i, t in tokens.items() if b"{" in t or (b"[" in t and b"]" not in t)]


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(map(depth, inner), default=0) if isinstance(value, dict | list) else 0


@pytest.mark.parametrize("schema", [LIST_OF_CHILDREN, OPTIONAL_CHILD])
def test_a_sampler_that_always_opens_comes_to_an_end(schema: dict[str, Any]) -> None:
    vocabulary = small_vocabulary()
    index = compile_constraint(json_schema_constraint(schema), vocabulary)
    text = draw(index, vocabulary, random.Random(1), prefer=opening, max_tokens=1500)
    assert text is not None
    assert MAX_DEPTH - 2 <= depth(json.loads(text)) <= MAX_DEPTH + 2


def test_brackets_in_strings_do_not_count() -> None:
    vocabulary = small_vocabulary()
    index = compile_constraint(json_schema_constraint({"type": "string"}), vocabulary)
    assert accepts(index, vocabulary, json.dumps("[{" * 3 * MAX_DEPTH))


def test_a_schema_that_demands_more_depth_gets_it() -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(MAX_DEPTH + 10):
        schema = {"type": "array", "items": schema, "minItems": 1, "maxItems": 1}
    vocabulary = small_vocabulary()
    index = compile_constraint(json_schema_constraint(schema), vocabulary)
    text = draw(index, vocabulary, random.Random(1), max_tokens=1500)
    assert text is not None and depth(json.loads(text)) == MAX_DEPTH + 10
