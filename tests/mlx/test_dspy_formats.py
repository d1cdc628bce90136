"""Whatever the guide of a DSPy format lets through is parsed by DSPy, and nothing else is let."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError

from litellm_mlx.grammar.compiler import Index, compile_constraint
from litellm_mlx.grammar.constraint import json_schema_constraint
from litellm_mlx.grammar.structure import structure_constraint
from litellm_mlx.grammar.structure_compiler import StructureIndex, compile_structure
from litellm_mlx.grammar.vocabulary import Vocabulary
from litellm_mlx.translate.dspy_format import DSPyFormat, repaired_format
from tests.dspy_table import CASES, FIELD, signature
from tests.grammar_sampling import Prefer, byte_ids, draw, small_vocabulary, tokens_of

CHAT, JSON, XML = dspy.ChatAdapter(), dspy.JSONAdapter(), dspy.XMLAdapter()
# What XMLAdapter's prompt gives exactly: values without markup of their own.
IN_XML = [
    *("str", "code", "optional str", "int", "float", "bool", "literal", "literal with separators"),
    *("literal numbers", "mixed literal", "enum", "optional int", "tuple", "set", "decimal"),
]
NAMES = ("before", FIELD, "completed")
NUM_DRAWS = 8


def format_of(adapter: dspy.Adapter, name: str) -> DSPyFormat:
    messages = adapter.format(signature(name), [], {"question": "x"})
    found = repaired_format(messages, {"type": "json_object"} if adapter is JSON else None)
    assert found is not None
    return found


def index_of(found: DSPyFormat) -> StructureIndex:
    assert found.structure is not None
    return compile_structure(structure_constraint(found.structure), small_vocabulary())


def closing(rng: random.Random, ends: Sequence[str]) -> Prefer:
    """Prefer, now and then, to write one of some texts, so that free text ends before long."""
    plain = tokens_of(b' \n"}],0123456789[#completed')
    pending: list[int] = []

    def prefer(allowed: Sequence[int], vocabulary: Vocabulary) -> Sequence[int]:
        if not pending and rng.random() < 0.25:
            pending.extend(byte_ids(vocabulary, rng.choice(ends)))
        if pending and pending[0] in allowed:
            return [pending.pop(0)]
        pending.clear()
        return plain(allowed, vocabulary) if rng.random() < 0.7 else allowed

    return prefer


def drawn(index: StructureIndex, ends: Sequence[str], seed: int) -> list[str]:
    """Finished texts that pass the index's check; an endless one is left out."""
    rng = random.Random(seed)
    prefer = closing(rng, ends)
    texts = [
        draw(index, small_vocabulary(), rng, prefer=prefer, max_tokens=600)
        for _ in range(NUM_DRAWS)
    ]
    finished = [text.decode("utf-8", "replace") for text in texts if text is not None]
    return [text for text in finished if index.check(text) is None]


@pytest.mark.parametrize("name", CASES)
def test_dspy_parses_whatever_a_chat_guide_lets_through(name: str) -> None:
    ends = [f"{gap}[[ ## {field} ## ]]" for gap in ("\n", "\n\n") for field in NAMES]
    texts = drawn(index_of(format_of(CHAT, name)), [*ends, '"', "}", "]"], 11)
    assert len(texts) >= NUM_DRAWS // 2  # or the test would say little
    for text in texts:
        assert set(CHAT.parse(signature(name), text)) == set(NAMES), text


@pytest.mark.parametrize("name", IN_XML)
def test_dspy_parses_whatever_an_xml_guide_lets_through(name: str) -> None:
    ends = [f"\n</{field}>" for field in NAMES]
    texts = drawn(index_of(format_of(XML, name)), [*ends, '"', "]]>", "&lt;"], 12)
    assert len(texts) >= NUM_DRAWS // 2
    for text in texts:
        assert set(XML.parse(signature(name), text)) == set(NAMES), text


def allows(index: Index, text: str) -> bool:
    """Asked byte by byte; the bitmask lets forced text come in one spelling only."""
    guide = index.guide()
    for token_id in byte_ids(small_vocabulary(), text):
        if not guide.allows((token_id,)):
            return False
        guide.advance(token_id)
    return guide.is_accepting and index.check(text) is None


def chat_text(value: str, gap: str = "\n\n") -> str:
    blocks = (("before", "a\n[[ b"), (FIELD, value), ("completed", "c"))
    text = gap.join(f"[[ ## {name} ## ]]\n{body}" for name, body in blocks)
    return f"{text}{gap}[[ ## completed ## ]]"


@pytest.mark.parametrize("name", CASES)
def test_right_values_are_let_through_and_wrong_ones_are_not(name: str) -> None:
    case, index = CASES[name], index_of(format_of(CHAT, name))
    if case.is_text:
        assert allows(index, chat_text("any [text]\n\n# at all", "\n"))
        assert not allows(index, chat_text("[[ ## before ## ]]"))
        return
    if case.words is not None:
        right = list(case.words)
        wrong = [str(value) for value in case.wrong if str(value) not in right]
    else:
        right, wrong = ([json.dumps(v) for v in values] for values in (case.right, case.wrong))
    for text in right:
        assert allows(index, chat_text(text)), text
    for text in wrong:
        assert not allows(index, chat_text(text)), text


@pytest.mark.parametrize("name", CASES)
def test_json_taken_from_the_prompt_compiles(name: str) -> None:
    schema = format_of(JSON, name).schema
    assert schema is not None
    index = compile_constraint(json_schema_constraint(schema), small_vocabulary())
    for value in CASES[name].right:
        text = json.dumps({"before": "a", FIELD: value, "completed": "b"}, ensure_ascii=False)
        assert allows(index, text) or CASES[name].is_text, value


def test_a_demo_in_dspys_own_words_is_let_through() -> None:
    wanted = dspy.Signature("q -> a: str, b: bool, c: list[int], d: Literal['x', 'y']")
    demo = {"q": "?", "a": "Some\n\ntext", "b": True, "c": [1, 2], "d": "x"}
    messages = CHAT.format(wanted, [demo], {"q": "x"})
    found = repaired_format(messages, None)
    assert found is not None
    assert allows(index_of(found), messages[2]["content"].rstrip())


def parse_failure(adapter: dspy.Adapter, wanted: Any, text: str) -> AdapterParseError | None:
    try:
        adapter.parse(wanted, text)
    except AdapterParseError as error:
        return error
    return None


def test_a_react_step_parses_whatever_is_drawn() -> None:
    def search(query: str, limit: int = 3) -> str:
        """Search."""
        return query

    step = dspy.ReAct("question -> answer: int", tools=[search]).react.signature
    found = repaired_format(CHAT.format(step, [], {"question": "x", "trajectory": ""}), None)
    assert found is not None
    index = index_of(found)
    names = [*step.output_fields, "completed"]
    texts = drawn(index, [f"\n\n[[ ## {name} ## ]]" for name in names] + ["}", '"'], 13)
    assert len(texts) >= NUM_DRAWS // 2
    assert all(parse_failure(CHAT, step, text) is None for text in texts)
