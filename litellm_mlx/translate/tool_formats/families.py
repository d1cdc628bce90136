"""The table of call syntaxes, and which of them a model's own files name.

Mostly mlx-lm's guess from the chat template decides; the names in `_BY_PARSER` are its parsers'.
What mlx-lm has no parser for is told by its template here. A template that shows no tools at all
gets `PLAIN` and an instruction, see `translate.tools`. Forms from outside (`extend`) come first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from litellm_mlx.registered import Table
from litellm_mlx.translate.tool_formats.deepseek import (
    DEEPSEEK_V3,
    DEEPSEEK_V32,
    DSML,
    V3_CALLS,
)
from litellm_mlx.translate.tool_formats.form import Form
from litellm_mlx.translate.tool_formats.gemma_form import GemmaForm
from litellm_mlx.translate.tool_formats.json_form import JsonForm
from litellm_mlx.translate.tool_formats.markup_form import MarkupForm

HERMES = JsonForm(
    head='<tool_call>\n{"name": "NAME", "arguments": ',
    tail="}\n</tool_call>",
    between="\n",
    markers=("<tool_call>", "</tool_call>"),
)
# For models without a syntax of their own: Hermes', which most have seen in training.
PLAIN = HERMES

MISTRAL_LIST = JsonForm(
    opens="[TOOL_CALLS][",
    head='{"name": "NAME", "arguments": ',
    tail="}",
    between=", ",
    closes="]",
    markers=("[TOOL_CALLS]",),
    has_short_ids=True,
)
MISTRAL = JsonForm(
    head="[TOOL_CALLS]NAME[ARGS]",
    markers=("[TOOL_CALLS]", "[ARGS]"),
    has_short_ids=True,
)
# The whole answer is a call or none of it is: nothing but the braces sets a call apart.
LLAMA = JsonForm(head='{"name": "NAME", "parameters": ', tail="}", between="; ", leads_answer=True)
# Used beside a response_format, where an answer may begin with a brace and be none.
LLAMA_TAGGED = JsonForm(
    opens="<|python_tag|>",
    head='{"name": "NAME", "parameters": ',
    tail="}",
    between="; ",
    markers=("<|python_tag|>",),
)
# gpt-oss stops after one call; its stop token <|call|> is the end of the text.
HARMONY = JsonForm(
    head="<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>",
    markers=("<|channel|>", "<|constrain|>", "<|message|>", "<|end|>", "<|start|>"),
    is_parallel=False,
    leads_answer=True,
    answer_head="<|channel|>final<|message|>",
    thought=("<|channel|>analysis<|message|>", "<|end|><|start|>assistant"),
)
KIMI_K2 = JsonForm(
    opens="<|tool_calls_section_begin|>",
    head="<|tool_call_begin|>functions.NAME:INDEX<|tool_call_argument_begin|>",
    tail="<|tool_call_end|>",
    closes="<|tool_calls_section_end|>",
    markers=(
        *("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
        *("<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"),
    ),
)
KIMI_K3 = JsonForm(
    opens="<|open|>tools<|sep|>",
    head='<|open|>call tool="NAME" index="INDEX"<|sep|><|open|>json type="object"<|sep|>',
    tail="<|close|>json<|sep|><|close|>call<|sep|>",
    closes="<|close|>tools<|sep|>",
    markers=("<|open|>", "<|close|>", "<|sep|>"),
)
# Phi-4-mini and Granite 3; Phi closes the list with a tag.
PHI = JsonForm(
    opens="<|tool_call|>[",
    head='{"name": "NAME", "arguments": ',
    tail="}",
    between=", ",
    closes="]<|/tool_call|>",
    markers=("<|tool_call|>", "<|/tool_call|>"),
)
GRANITE = JsonForm(
    opens="<|tool_call|>[",
    head='{"name": "NAME", "arguments": ',
    tail="}",
    between=", ",
    closes="]",
    markers=("<|tool_call|>",),
)

_GLM_MARKERS = (
    *("<tool_call>", "</tool_call>"),
    *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
)
GLM_LINES = MarkupForm(  # GLM 4.5
    head="<tool_call>NAME\n",
    value_head="<arg_key>KEY</arg_key>\n<arg_value>",
    value_tail="</arg_value>\n",
    value_end="</arg_value>",
    tail="</tool_call>",
    between="\n",
    markers=_GLM_MARKERS,
)
GLM = MarkupForm(  # GLM 4.7, Laguna
    head="<tool_call>NAME",
    value_head="<arg_key>KEY</arg_key><arg_value>",
    value_tail="</arg_value>",
    value_end="</arg_value>",
    tail="</tool_call>",
    markers=_GLM_MARKERS,
)
LONGCAT = MarkupForm(
    head="<longcat_tool_call>NAME\n",
    value_head="<longcat_arg_key>KEY</longcat_arg_key>\n<longcat_arg_value>",
    value_tail="</longcat_arg_value>\n",
    value_end="</longcat_arg_value>",
    tail="</longcat_tool_call>",
    between="\n",
    markers=(
        *("<longcat_tool_call>", "</longcat_tool_call>"),
        *("<longcat_arg_key>", "</longcat_arg_key>"),
        *("<longcat_arg_value>", "</longcat_arg_value>"),
    ),
)
QWEN3_CODER = MarkupForm(
    head="<tool_call>\n<function=NAME>\n",
    value_head="<parameter=KEY>\n",
    value_tail="\n</parameter>\n",
    value_end="</parameter>",
    tail="</function>\n</tool_call>",
    between="\n",
    markers=("<tool_call>", "</tool_call>"),
)
MINIMAX = MarkupForm(
    opens="<minimax:tool_call>\n",
    head='<invoke name="NAME">\n',
    value_head='<parameter name="KEY">',
    value_tail="</parameter>\n",
    value_end="</parameter>",
    tail="</invoke>\n",
    closes="</minimax:tool_call>",
    markers=("<minimax:tool_call>", "</minimax:tool_call>"),
)
MINICPM = MarkupForm(
    head='<function name="NAME">',
    value_head='<param name="KEY">',
    value_tail="</param>",
    value_end="</param>",
    tail="</function>",
    has_cdata=True,
)
MUSE_SPARK = MarkupForm(
    opens="<atem:function_calls>\n",
    head='<atem:invoke name="NAME">\n',
    value_head='<atem:parameter name="KEY">',
    value_tail="</atem:parameter>\n",
    value_end="</atem:parameter>",
    tail="</atem:invoke>\n",
    closes="</atem:function_calls>",
    markers=("<atem:function_calls>", "</atem:function_calls>"),
)
PYTHONIC = MarkupForm(  # LFM2
    opens="<|tool_call_start|>[",
    head="NAME(",
    value_head="KEY=",
    value_tail="",
    value_separator=", ",
    tail=")",
    between=", ",
    closes="]<|tool_call_end|>",
    markers=("<|tool_call_start|>", "<|tool_call_end|>"),
    has_raw_strings=False,
)
GEMMA4 = GemmaForm(
    head="<|tool_call>call:NAME",
    tail="<tool_call|>",
    quote='<|"|>',
    markers=("<|tool_call>", "<tool_call|>", '<|"|>'),
)
FUNCTION_GEMMA = GemmaForm(
    head="<start_function_call>call:NAME",
    tail="<end_function_call>",
    quote="<escape>",
    markers=("<start_function_call>", "<end_function_call>", "<escape>"),
)

_BY_PARSER: Mapping[str, Callable[[str], Form]] = {
    "function_gemma": lambda template: FUNCTION_GEMMA,
    "gemma4": lambda template: GEMMA4,
    "glm47": lambda template: GLM_LINES if "\\n<arg_key>" in _one_line(template) else GLM,
    "json_tools": lambda template: HERMES,
    "kimi_k2": lambda template: KIMI_K2,
    "kimi_k3": lambda template: KIMI_K3,
    "laguna": lambda template: GLM,
    "longcat": lambda template: LONGCAT,
    "minicpm5": lambda template: MINICPM,
    "minimax_m2": lambda template: MINIMAX,
    "mistral": lambda template: MISTRAL if "[ARGS]" in template else MISTRAL_LIST,
    "muse_spark": lambda template: MUSE_SPARK,
    "pythonic": lambda template: PYTHONIC,
    "qwen3_coder": lambda template: QWEN3_CODER,
}
# Texts that only one family's template has, and its form; the first that fits is taken.
_BY_TEMPLATE: tuple[tuple[tuple[str, ...], Form], ...] = (
    ((DSML,), DEEPSEEK_V32),
    ((V3_CALLS,), DEEPSEEK_V3),
    (("<|channel|>", "to=functions."), HARMONY),
    (("<|/tool_call|>",), PHI),
    (("<|tool_call|>",), GRANITE),
    (("<tool_call>",), HERMES),
    (("<|start_header_id|>", "parameters"), LLAMA),
    (("<|python_tag|>",), LLAMA),
)


@dataclass(frozen=True, slots=True)
class CustomForm:
    """A form from outside, and the chat templates that it goes with."""

    matches: Callable[[str], bool]
    form: Form


custom_forms: Table[CustomForm] = Table("tool format")


def form_of(tokenizer: Any) -> Form:
    """The form that a model writes its calls in; `PLAIN` where its files name none.

    Args:
        tokenizer: mlx-lm's wrapper.
    """
    template = template_of(tokenizer)
    for _, custom in custom_forms.items():
        if custom.matches(template):
            return custom.form
    parser = getattr(getattr(tokenizer, "tool_parser", None), "__module__", "").rpartition(".")[2]
    if parser in _BY_PARSER:
        return _BY_PARSER[parser](template)
    for texts, form in _BY_TEMPLATE:
        if all(text in template for text in texts):
            return form
    return PLAIN


def template_of(tokenizer: Any) -> str:
    """The text of the chat template, or of all of them where it has several."""
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, Mapping):
        return "\n".join(str(text) for text in template.values())
    if isinstance(template, str):
        return template
    renderer = getattr(tokenizer, "_chat_template", None)  # a function of mlx-lm's
    return DSML if "deepseek_v32" in getattr(renderer, "__module__", "") else ""


def _one_line(template: str) -> str:
    """A template with its line breaks as Jinja's strings spell them."""
    return template.replace("\n", "\\n")
