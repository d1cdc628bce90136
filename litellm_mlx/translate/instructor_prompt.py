"""The schema that instructor prints in its system message where it sends none.

Its JSON mode asks for any JSON object, MD_JSON and Anthropic's JSON mode ask for nothing at all;
all say in fixed sentences, to be tested against the installed instructor, what the object must
be. Text that is not theirs to the letter is left alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.structure import Part, Seq, Text, json_part
from litellm_mlx.translate.texts import texts_of

TASK = (
    "\n            As a genius expert, your task is to understand the content and provide"
    "\n            the parsed objects in json that match the following json_schema:\n"
)
GAP = "\n\n            "  # between the sentence and the schema
ANTHROPIC_GAP = "\n            "
AFTER = "\n\n            Make sure to return an instance of the JSON, not the schema itself"
CODE_BLOCK = "Return the correct JSON response within a ```json codeblock. not the JSON_SCHEMA"
# How a message begins that asks again after an answer that did not validate.
ASKED_AGAIN = "Correct your JSON ONLY RESPONSE, based on the following errors:\n"
REPAIR = "schema from instructor's prompt"


@dataclass(frozen=True, slots=True)
class _Printed:
    """A schema, and the blank that instructor has put before it, which tells who printed it."""

    gap: str
    schema: dict[str, Any]


def instructed_part(
    messages: Sequence[Mapping[str, Any]], response_format: Mapping[str, Any] | None
) -> Part | None:
    """What the answer must be by instructor's prompt; `None` leaves the request as it was sent."""
    printed = _printed_in(messages)
    if printed is None:
        return None
    try:
        part = json_part(printed.schema)
    except ConstraintError:
        return None
    if printed.gap == ANTHROPIC_GAP:
        return part if response_format is None else None
    if response_format == {"type": "json_object"}:
        return part
    if response_format is None and _asks_for_code_block(messages):
        return Seq((Text("```json\n"), part, Text("\n```")))
    return None


def _printed_in(messages: Sequence[Mapping[str, Any]]) -> _Printed | None:
    """The object between instructor's sentences, which the system message has once."""
    if not messages or messages[0].get("role") != "system":
        return None
    tails = [tail for text in texts_of(messages[0]) for tail in text.split(TASK)[1:]]
    return _read(tails[0]) if len(tails) == 1 else None


def _read(tail: str) -> _Printed | None:
    """Read what follows the first sentence: a blank, a schema, and the last sentence.

    Two things may follow these: the caller's own second system message, and a line break, which
    Jinja takes away where the call has a `context`.
    """
    gap = next((gap for gap in (GAP, ANTHROPIC_GAP) if tail.startswith(gap + "{")), None)
    if gap is None:
        return None
    try:
        schema, end = json.JSONDecoder().raw_decode(tail, len(gap))
    except (ValueError, RecursionError):
        return None
    sentence, _, _ = tail[end:].removeprefix(AFTER).partition("\n")
    return _Printed(gap, schema) if tail.startswith(AFTER, end) and not sentence else None


def _asks_for_code_block(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether instructor's last turn of the caller's asks for one; its own turns may follow."""
    turns = [
        text
        for message in messages
        if message.get("role") == "user" and (text := "".join(texts_of(message)[-1:]))
    ]
    while turns and turns[-1].startswith(ASKED_AGAIN):
        turns.pop()
    return bool(turns) and turns[-1].endswith(CODE_BLOCK)
