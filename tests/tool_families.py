"""Families of models: their templates, their forms, and calls as they write them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from litellm_mlx.grammar.vocabulary import Vocabulary
from litellm_mlx.translate.tool_formats import deepseek, families
from litellm_mlx.translate.tool_formats.form import Form
from tests.grammar_sampling import STOP_TOKEN_IDS, byte_tokenizer

TEMPLATES = Path(__file__).parent / "data" / "templates"

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather at a place.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "its name"},
                "days": {"type": "integer", "minimum": 1, "maximum": 14},
                "unit": {"type": "string", "enum": ["C", "F"]},
                "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
                "hours": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
                "place": {"$ref": "#/$defs/Place"},
            },
            "required": ["city", "days"],
            "$defs": {
                "Place": {
                    "type": "object",
                    "properties": {"lat": {"type": "number"}, "kind": {"type": "string"}},
                    "required": ["lat"],
                    "additionalProperties": False,
                }
            },
        },
    },
}
ALARM: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "set_alarm",
        "parameters": {
            "type": "object",
            "properties": {
                "hour": {"type": "integer", "minimum": 0, "maximum": 23},
                "sound": {"enum": ["bell", "bird"]},
                "loud": {"type": "boolean"},
            },
            "required": ["hour"],
        },
    },
}
STOP: dict[str, Any] = {"type": "function", "function": {"name": "stop_all"}}
TOOLS = [WEATHER, ALARM, STOP]

# What every example below says.
CALLS = [
    ("get_weather", {"city": 'São "P"\'s\n{x}', "days": 3, "hours": [1, 2]}),
    ("set_alarm", {"hour": 7, "sound": "bird", "loud": True}),
]


@dataclass(frozen=True, slots=True)
class Family:
    """One family: `text` says `CALLS` in its syntax, or the first of them only."""

    name: str
    template: str
    form: Form
    text: str
    num_calls: int = 2


_JSON_1 = '{"city": "São \\"P\\"\'s\\n{x}", "days": 3, "hours": [1, 2]}'
_JSON_2 = '{"hour": 7, "sound": "bird", "loud": true}'

FAMILIES = [
    Family(
        "hermes",
        "hermes",
        families.HERMES,
        f'<tool_call>\n{{"name": "get_weather", "arguments": {_JSON_1}}}\n</tool_call>\n'
        f'<tool_call>\n{{"name": "set_alarm", "arguments": {_JSON_2}}}\n</tool_call>',
    ),
    Family(
        "mistral",
        "mistral",
        families.MISTRAL_LIST,
        f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {_JSON_1}}}, '
        f'{{"name": "set_alarm", "arguments": {_JSON_2}}}]',
    ),
    Family(
        "ministral",
        "ministral",
        families.MISTRAL,
        f"[TOOL_CALLS]get_weather[ARGS]{_JSON_1}[TOOL_CALLS]set_alarm[ARGS]{_JSON_2}",
    ),
    Family(
        "llama",
        "llama",
        families.LLAMA,
        f'{{"name": "get_weather", "parameters": {_JSON_1}}}; '
        f'{{"name": "set_alarm", "parameters": {_JSON_2}}}',
    ),
    Family(
        "gemma4",
        "gemma4",
        families.GEMMA4,
        '<|tool_call>call:get_weather{city:<|"|>São "P"\'s\n{x}<|"|>,days:3,hours:[1,2]}'
        '<tool_call|><|tool_call>call:set_alarm{hour:7,sound:<|"|>bird<|"|>,loud:true}'
        "<tool_call|>",
    ),
    Family(
        "glm",
        "glm",
        families.GLM_LINES,
        "<tool_call>get_weather\n"
        '<arg_key>city</arg_key>\n<arg_value>São "P"\'s\n{x}</arg_value>\n'
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n"
        "<arg_key>hours</arg_key>\n<arg_value>[1, 2]</arg_value>\n</tool_call>\n"
        "<tool_call>set_alarm\n"
        "<arg_key>hour</arg_key>\n<arg_value>7</arg_value>\n"
        "<arg_key>sound</arg_key>\n<arg_value>bird</arg_value>\n"
        "<arg_key>loud</arg_key>\n<arg_value>true</arg_value>\n</tool_call>",
    ),
    Family(
        "qwen3_coder",
        "qwen3_coder",
        families.QWEN3_CODER,
        "<tool_call>\n<function=get_weather>\n"
        '<parameter=city>\nSão "P"\'s\n{x}\n</parameter>\n'
        "<parameter=days>\n3\n</parameter>\n"
        "<parameter=hours>\n[1, 2]\n</parameter>\n</function>\n</tool_call>\n"
        "<tool_call>\n<function=set_alarm>\n"
        "<parameter=hour>\n7\n</parameter>\n"
        "<parameter=sound>\nbird\n</parameter>\n"
        "<parameter=loud>\ntrue\n</parameter>\n</function>\n</tool_call>",
    ),
    Family(
        "kimi_k2",
        "kimi_k2",
        families.KIMI_K2,
        "<|tool_calls_section_begin|>"
        f"<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{_JSON_1}"
        "<|tool_call_end|>"
        f"<|tool_call_begin|>functions.set_alarm:1<|tool_call_argument_begin|>{_JSON_2}"
        "<|tool_call_end|><|tool_calls_section_end|>",
    ),
    Family(
        "harmony",
        "harmony",
        families.HARMONY,
        "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>" + _JSON_1,
        num_calls=1,
    ),
    Family(
        "pythonic",
        "pythonic",
        families.PYTHONIC,
        '<|tool_call_start|>[get_weather(city="São \\"P\\"\'s\\n{x}", days=3, hours=[1, 2]), '
        'set_alarm(hour=7, sound="bird", loud=true)]<|tool_call_end|>',
    ),
    Family(
        "plain",
        "plain",
        families.PLAIN,
        f'<tool_call>\n{{"name": "get_weather", "arguments": {_JSON_1}}}\n</tool_call>\n'
        f'<tool_call>\n{{"name": "set_alarm", "arguments": {_JSON_2}}}\n</tool_call>',
    ),
]
# Syntaxes for which there is no template here, as mlx-lm's parsers or its templates have them.
OTHER_FORMS = {
    "deepseek_v3": deepseek.DEEPSEEK_V3,
    "deepseek_v32": deepseek.DEEPSEEK_V32,
    "function_gemma": families.FUNCTION_GEMMA,
    "glm47": families.GLM,
    "granite": families.GRANITE,
    "kimi_k3": families.KIMI_K3,
    "longcat": families.LONGCAT,
    "minicpm5": families.MINICPM,
    "minimax_m2": families.MINIMAX,
    "muse_spark": families.MUSE_SPARK,
    "phi": families.PHI,
}


@cache
def tokenizer_of(family: str) -> Any:
    """mlx-lm's own wrapper of a byte tokenizer with the family's template and markers."""
    from mlx_lm.tokenizer_utils import load

    chosen = next(f for f in FAMILIES if f.name == family)
    tokenizer = byte_tokenizer()
    special = list(chosen.form.markers) if family != "plain" else []
    if family == "llama":
        special = ["<|python_tag|>", "<|eot_id|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.chat_template = (TEMPLATES / f"{chosen.template}.jinja").read_text("utf-8")
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return load(Path(folder))


@cache
def vocabulary_of(family: str) -> Vocabulary:
    """The vocabulary of that tokenizer."""
    return _vocabulary(tokenizer_of(family)._tokenizer)


@cache
def vocabulary_with(markers: tuple[str, ...]) -> Vocabulary:
    """A vocabulary in which these texts are special tokens."""
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(markers)})
    return _vocabulary(tokenizer)


def _vocabulary(tokenizer: Any) -> Vocabulary:
    return Vocabulary.from_tokenizer(
        tokenizer, vocab_size=len(tokenizer) + 3, stop_token_ids=STOP_TOKEN_IDS
    )
