"""JSON inside a caller's own grammar is held as exactly as JSON alone."""

from __future__ import annotations

import pytest

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.compiler import compile_constraint
from litellm_mlx.grammar.constraint import grammar_constraint
from litellm_mlx.grammar.lark_json import with_narrow_schemas
from tests.grammar_sampling import accepts, small_vocabulary


def holds(lark: str, text: str) -> bool:
    vocabulary = small_vocabulary()
    return accepts(compile_constraint(grammar_constraint(lark), vocabulary), vocabulary, text)


def test_a_class_keeps_quotes_and_backslashes_out() -> None:
    lark = r'start: "x=" j' + "\n" + r'j: %json {"type": "string", "pattern": "^[^\"\\\\]$"}'
    assert holds(lark, 'x="a"')
    assert not holds(lark, r'x="\""') and not holds(lark, r'x="\\"')


def test_decimals_below_a_bound_can_be_written_in_each_of_two_schemas() -> None:
    lark = 'start: a "," b\na: %json {"type": "number", "minimum": 0, "maximum": 0.95}\n'
    lark += 'b: %json {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}'
    assert holds(lark, "0.9,0.9") and not holds(lark, "0.96,0.9") and not holds(lark, "0.9,1")


def test_what_no_spelling_settles_is_refused() -> None:
    with pytest.raises(ConstraintError, match="read differently"):
        holds('start: %json {"type": "string", "pattern": "^[]a]$"}', '"a"')


def test_all_else_of_a_grammar_stays_as_it_is() -> None:
    lark = 'start: "%json" j // %json {broken\nj: %json {"type": "null"}\n'
    assert with_narrow_schemas(lark) == lark
