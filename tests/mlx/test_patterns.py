"""Classes of characters in regexes: what the grammar lets through is what the regex matches."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema_rs
import pytest

from litellm_mlx.grammar.constraint import json_schema_constraint
from litellm_mlx.grammar.patterns import plain_pattern
from litellm_mlx.grammar.tiers import SchemaPlan, plan_schema
from litellm_mlx.grammar.vocabulary import byte_vocabulary

# With and without quote, backslash and control characters, negated and not, alone and in unions.
CLASSES = (
    *('[^"]', r"[^\\]", r'[^\n"]', r'[^\\/:*?"<>|]', r"[\x00-\x1f]", r'[^\s"]', r"\P{P}"),
    *(r'[^\x00-\x1f"\\]', r"[^\\/]", r'[^\r\n"]', r'[^\[\]"\\]', r"[\s\S]", r'[^\S"]', r"\D"),
    *(r"\W", r"[\W_]", r"[^\w\\]", ".", r"\S", "[ -~]", r'(?:[^"]|\x00)', r"[^\u0022]"),
    *(r"[^\x5c]", r"[^\cA\"]", '[a&&"]', '[^a&&"]', '[^[a"]', r"[^ -~\"]", r"\p{Cc}", r"[\0-\/]"),
    *(r"[\w-.\"]", r"[+--]"),
)
FORMS = ("^{}$", "^{}+$", "^{}{{1,20}}$", "^a{}b$", "{}", "^(?:{}|x)$", "^({}a)+$", "^x|{}$")
TEXTS = (
    *('"', "\\", "a", "\n", "\t", "/", 'a"b', "a\\b", '""', '\\"', "x", "ab", "0", "é", "٣", ""),
    *("\x85", "\ufeff", "\u2028", "[", "&", "-", ",", '"a"', '"a', "c:\\d", "😀", "_", "\\\\", " "),
)
TOKENIZER = byte_vocabulary().ll_tokenizer


def plan(schema: Any) -> SchemaPlan:
    return plan_schema(json_schema_constraint(schema).source, byte_vocabulary())


def accepts(plan: SchemaPlan, value: Any) -> bool:
    """Whether a value, as json.dumps writes it, comes through."""
    return accepts_text(plan, json.dumps(value, ensure_ascii=False))


def accepts_text(plan: SchemaPlan, text: str) -> bool:
    """Whether a text comes through the grammar and, where there is one, the check."""
    matcher, token_ids = plan.matcher.deep_copy(), TOKENIZER.tokenize_bytes(text.encode())
    is_whole = matcher.try_consume_tokens(token_ids) == len(token_ids) and matcher.is_accepting()
    return is_whole and plan.check(text) is None


def verdicts(pattern: str, texts: tuple[str, ...]) -> list[set[bool]]:
    """What Python and the validator say of each text, where they read the regex at all."""
    validator = jsonschema_rs.validator_for({"pattern": plain_pattern(pattern)})
    said = [{validator.is_valid(text)} for text in texts]
    try:
        python = re.compile(pattern)
    except re.error:
        return said
    # jsonschema_rs reads a dot so from 0.61 on.
    ecma = python if "[" in pattern else re.compile(pattern.replace(".", r"[^\n\r\u2028\u2029]"))
    return [
        says | {reads.search(text) is not None for reads in (python, ecma)}
        for text, says in zip(texts, said, strict=True)
    ]


@pytest.mark.filterwarnings("ignore:Possible (nested )?set:FutureWarning")
@pytest.mark.parametrize("class_", CLASSES)
def test_a_class_lets_nothing_through_that_it_leaves_out(class_: str) -> None:
    """In values and in names, whatever stands around it; and all that every engine takes."""
    for form in FORMS:
        pattern = form.format(class_)
        value = plan({"type": "string", "pattern": pattern})
        names = plan(
            {
                "type": "object",
                "patternProperties": {pattern: {"type": "integer"}},
                "additionalProperties": False,
            }
        )
        asked = {"type": "object", "propertyNames": {"pattern": pattern}}
        property_names = plan({**asked, "additionalProperties": {"type": "integer"}})
        assert value.tier == names.tier == property_names.tier == "grammar", pattern
        for text, says in zip(TEXTS, verdicts(pattern, TEXTS), strict=True):
            for place, is_accepted in (
                ("value", accepts(value, text)),
                ("name", accepts(names, {text: 1})),
                ("propertyNames", accepts(property_names, {text: 1})),
            ):
                assert is_accepted == (says == {True}), (pattern, text, place)


@pytest.mark.parametrize(
    ("pattern", "spelled"),
    [
        (r"[\w-.]", r"[\w\-.]"),
        (r"^[[a-z]*]*$", r"^[\[a-z]*\]*$"),
        (r"[+--]", r"[+-\-]"),
        (r"[a&&b]", r"[a\&\&b]"),
        (r"^a{$", r"^a\{$"),
        (r"^a}$", r"^a\}$"),
        (r"^\<$", r"^<$"),
        (r"^[a-z0-9_.-]{2,3}$", r"^[a-z0-9_.-]{2,3}$"),
        (r"^[^]$", r"^[^]$"),
    ],
)
def test_a_regex_of_a_browser_is_spelled_for_every_engine(pattern: str, spelled: str) -> None:
    assert plain_pattern(pattern) == spelled


def test_a_regex_with_a_class_that_engines_read_differently_is_left_to_the_check() -> None:
    assert plan({"type": "string", "pattern": "^[]a]$"}).tier == "grammar+check"
