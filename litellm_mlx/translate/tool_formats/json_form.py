"""Calls whose arguments are one JSON object: Hermes, Mistral, Llama, Kimi, gpt-oss and more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from litellm_mlx.grammar.escaped_lark import escaped_lark
from litellm_mlx.grammar.structure import Grammar, Part, Text, json_part
from litellm_mlx.translate.custom_tools import CONTENT
from litellm_mlx.translate.tool_formats.form import ArgumentsReader, Form, Tool, seq


class JsonForm(Form):
    """Arguments as JSON; they are streamed as they come."""

    def arguments_part(self, tool: Tool) -> Part:
        """The tool's schema itself, or its one text by its own grammar where that is known."""
        if tool.lark is not None and (escaped := escaped_lark(tool.lark)) is not None:
            return seq(Text(f'{{"{CONTENT}": "'), Grammar(escaped), Text('"}'))
        return json_part(tool.parameters)

    def arguments_reader(self, tool: Tool) -> ArgumentsReader:
        """Give a new reader of one call's arguments."""
        return JsonScanner()

    def arguments_text(self, tool: Tool, arguments: Mapping[str, Any]) -> str:
        """The arguments as JSON."""
        return json.dumps(arguments, ensure_ascii=False)


class JsonScanner:
    """Finds the end of one JSON object or array, character by character."""

    def __init__(self) -> None:
        self._depth = 0
        self._is_string = False
        self._is_escaped = False

    def read(self, text: str) -> tuple[int, str, bool]:
        """Take everything up to the end of the value; see `ArgumentsReader`."""
        for place, char in enumerate(text):
            if self._is_escaped:
                self._is_escaped = False
            elif self._is_string:
                self._is_escaped = char == "\\"
                self._is_string = char != '"'
            elif char == '"':
                self._is_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return place + 1, text[: place + 1], True
        return len(text), text, False
