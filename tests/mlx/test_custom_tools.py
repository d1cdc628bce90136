"""Custom tools of the Responses API: their text keeps to the caller's own grammar."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import litellm
import pytest
from litellm.exceptions import BadRequestError

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.escaped_lark import escaped_lark, text_check
from litellm_mlx.grammar.structure import Grammar, Seq, Text, structure_constraint
from litellm_mlx.grammar.structure_compiler import compile_structure
from litellm_mlx.translate.tool_reader import read_calls
from tests.grammar_sampling import draw, tokens_of
from tests.mlx.test_tools import allows, compiled, planned
from tests.tool_families import FAMILIES, Family, vocabulary_of

# As Codex sends it.
APPLY_PATCH = (Path(__file__).parents[1] / "data" / "apply_patch.lark").read_text("utf-8")
PATCH = (
    '*** Begin Patch\n*** Update File: src/ä "b"\\c.py\n@@ def f():\n-\tx = "1"\n+\tx = \'\\n{}\'\n'
    "*** Add File: d\n+\n+😀 </parameter>\n*** End Patch\n"
)
GRAMMARS = {
    "apply_patch": APPLY_PATCH,
    "words": 'start: WORD (" " WORD)*\n%import common.WORD',
    "lines": 'start: (/[^\\n]+/ NEWLINE)+\n%import common.NEWLINE',
    "quoted": 'start: "say \\"" /[^"]*/ "\\"" LF // a comment\n%import common.LF',
    "numbers": "start: NUM (LF NUM)*\nNUM: /-?\\d{1,3}/\n%import common.LF",
    "anything": r"start: /[\s\S]+/",
    "case": 'start: "select "i /.*/ ";"?',
}  # fmt: skip
# What has no rewriting inside a JSON string is only checked.
CHECKED = {
    "lookahead of a regex": 'start: /a"?b*/ LF\n%import common.LF',
    "a terminal with escapes": "start: LINE+\nLINE: /.+/ /\\n/",
    "a range": 'start: "a".."z"',
}


def custom(definition: str, syntax: str = "lark", name: str = "apply_patch") -> dict[str, Any]:
    format_ = {"type": "grammar", "syntax": syntax, "definition": definition}
    return {"type": "custom", "name": name, "description": "Edit files.", "format": format_}


def as_function(tool: dict[str, Any]) -> dict[str, Any]:
    """What LiteLLM itself makes of a custom tool."""
    from litellm.responses.litellm_completion_transformation.custom_tools import (
        convert_custom_tool_to_function_tool,
    )

    return dict(convert_custom_tool_to_function_tool(tool) or {})


@pytest.mark.parametrize("name", GRAMMARS)
def test_texts_of_the_rewritten_grammar_are_texts_of_the_callers(name: str) -> None:
    escaped, check = escaped_lark(GRAMMARS[name]), text_check(GRAMMARS[name])
    assert escaped is not None
    vocabulary = vocabulary_of("hermes")
    root = Seq((Text('"'), Grammar(escaped), Text('"')))
    index, rng = compile_structure(structure_constraint(root), vocabulary), random.Random(3)
    few = tokens_of(b'\\n"*+E ')  # so that lines, and texts, come to an end
    texts = [draw(index, vocabulary, rng, prefer=few, max_tokens=400) for _ in range(12)]
    found = [json.loads(text.decode("utf-8", "replace")) for text in texts if text is not None]
    assert found
    for text in found:
        assert check(text) is None, text


@pytest.mark.parametrize("name", CHECKED)
def test_what_cannot_be_rewritten_is_said_and_still_checked(name: str) -> None:
    assert escaped_lark(CHECKED[name]) is None
    assert text_check(CHECKED[name])("*") is not None


def test_a_text_is_checked_to_its_end() -> None:
    check = text_check(APPLY_PATCH)
    assert check(PATCH) is None
    assert "leaves the grammar after 0 bytes" in str(check("ls"))
    assert "ends before" in str(check(PATCH[:40]))
    with pytest.raises(ConstraintError, match="not usable"):
        text_check("start: nowhere")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_holds_a_custom_tool_to_its_grammar(family: Family) -> None:
    tool = as_function(custom(APPLY_PATCH))
    plan = planned(family.form, tools=[tool], tool_choice="required")
    vocabulary = vocabulary_of(family.name)
    form, (known,) = plan.form, plan.tools
    for text, is_right in ((PATCH, True), ("ls", False)):
        answer = form.opens + form.call_text(known, {"content": text}) + form.closes
        is_held = allows(plan, vocabulary, answer) and plan.check(answer) is None
        assert is_held == (is_right and "</parameter>" not in _ends(form))
    compiled(plan, vocabulary)
    assert read_calls(plan.reader(), answer)[1][0].name == "apply_patch"


def _ends(form: Any) -> str:
    """The text that no value as it is may hold, in forms that write it as it is."""
    return str(getattr(form, "value_end", ""))


def test_the_responses_api_gives_input_that_its_grammar_accepts(tiny: str) -> None:
    for seed in range(3):
        answer = litellm.responses(
            model=tiny,
            input="hello",
            tools=[custom(APPLY_PATCH)],
            tool_choice="required",
            max_output_tokens=300,
            extra_body={"seed": seed},
        )
        calls = [item for item in answer.output if item.type == "custom_tool_call"]
        assert calls
        for call in calls:
            assert call.name == "apply_patch"
            assert text_check(APPLY_PATCH)(call.input) is None


def test_a_regex_is_the_pattern_of_the_whole_text(tiny: str) -> None:
    tool = as_function(custom("[a-c]{2,4}(\\n[xy])?", "regex", "pick"))
    for seed in range(4):
        answer = litellm.completion(
            model=tiny,
            messages=[{"role": "user", "content": "hello"}],
            tools=[tool],
            tool_choice="required",
            max_tokens=100,
            seed=seed,
        )
        for call in answer.choices[0].message.tool_calls:
            text = json.loads(call.function.arguments)["content"]
            assert re.fullmatch("[a-c]{2,4}(\\n[xy])?", text)


@pytest.mark.parametrize(
    ("tool", "named"),
    [
        (custom("start: nowhere"), "apply_patch"),
        (custom("start: a", "gbnf"), "'gbnf'"),
        (custom("(", "regex"), "regex"),
    ],
)
def test_a_format_that_is_none_is_refused_by_its_tools_name(
    tiny: str, tool: dict[str, Any], named: str
) -> None:
    with pytest.raises(BadRequestError, match=named):
        litellm.completion(
            model=tiny,
            messages=[{"role": "user", "content": "hello"}],
            tools=[as_function(tool)],
        )
