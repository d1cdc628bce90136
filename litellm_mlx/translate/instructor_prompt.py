"""The schema that instructor prints in its system message where it sends none.

Its JSON mode asks for any JSON object, its MD_JSON mode for nothing at all; both say in fixed
sentences, to be tested against the installed instructor, what the object must be. Text that is
not theirs to the letter is left alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.structure import Part, Seq, Text, json_part

BEFORE = (
    "\n            As a genius expert, your task is to understand the content and provide"
    "\n            the parsed objects in json that match the following json_schema:\n\n\n"
    "            "
)
AFTER = "\n\n            Make sure to return an instance of the JSON, not the schema itself\n"
CODE_BLOCK = "Return the correct JSON response within a ```json codeblock. not the JSON_SCHEMA"
REPAIR = "schema from instructor's prompt"


def instructed_part(
    messages: Sequence[Mapping[str, Any]], response_format: Mapping[str, Any] | None
) -> Part | None:
    """What the answer must be by instructor's prompt; `None` leaves the request as it was sent."""
    schema = _schema_in(messages)
    if schema is None:
        return None
    try:
        part = json_part(schema)
    except ConstraintError:
        return None
    if response_format == {"type": "json_object"}:
        return part
    if response_format is None and _text(messages[-1]).endswith(CODE_BLOCK):
        return Seq((Text("```json\n"), part, Text("\n```")))
    return None


def _schema_in(messages: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The object between instructor's sentences, which end the system message."""
    if not messages or messages[0].get("role") != "system":
        return None
    text = _text(messages[0])
    if text.count(BEFORE) != 1 or not text.endswith(AFTER):
        return None
    printed = text.partition(BEFORE)[2].removesuffix(AFTER)
    try:
        schema = json.loads(printed)
    except (ValueError, RecursionError):
        return None
    return schema if isinstance(schema, dict) else None


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""
