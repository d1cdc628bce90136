"""What DSPy's own system message says about the fields of the answer, read to the letter.

Owns the reader. What a field's note means is `dspy_fields`; what is made of it, `dspy_format`.

The message has three parts, each opened by a line that DSPy always prints: a numbered list of the
fields (names, Python types, descriptions), the structure of a turn (one block per field), and the
instructions, every line of which DSPy indents. Descriptions and instructions may hold anything,
these lines and forged fields too, so each such line must be there exactly once, and list and
structure must name the same fields in the same order. Everything else raises `UnknownPrompt`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from litellm_mlx.translate.texts import texts_of

Adapter = Literal["chat", "json", "xml", "baml"]

# DSPy's sentences (adapters/chat_adapter.py and its neighbours); a test asks the installed DSPy.
INPUTS_LINE = "Your input fields are:"
OUTPUTS_LINE = "Your output fields are:"
STRUCTURE_LINE = (
    "All interactions will be structured in the following way, "
    "with the appropriate values filled in."
)
OBJECTIVE_LINE = "In adhering to this structure, your objective is: "
JSON_INPUTS_LINE = "Inputs will have the following structure:"
JSON_OUTPUTS_LINE = "Outputs will be a JSON object with the following fields."
COMPLETED_LINE = "[[ ## completed ## ]]"
CONSTRAINTS = "Constraints: "
NOTE = "        # note: the value you produce "
INSTRUCTION_INDENT = "        "

_ENTRY = re.compile(r"(\d+)\. `(\w+)` \((.*)")
_VALUE = r"\{(?P<value>\w+)\}(?:" + re.escape(NOTE) + r"(?P<note>.*))?"
_CHAT_BLOCK = re.compile(r"\[\[ ## (?P<name>\w+) ## \]\]\n" + _VALUE)
_XML_BLOCK = re.compile(r"<(?P<name>\w+)>\n" + _VALUE + r"\n</(?P=name)>")
_BAML_BLOCK = re.compile(
    r"\[\[ ## (?P<name>\w+) ## \]\]\nOutput field `(?P=name)` should be of type: .*", re.DOTALL
)


class UnknownPrompt(Exception):
    """The message is not what DSPy prints, or could be read in two ways."""


@dataclass(frozen=True, slots=True)
class Field:
    """One output field as the prompt tells it.

    Attributes:
        name: a Python identifier.
        annotation: the line of the list from the type on: `int): how many`.
        note: what the value "must" be, as `must be True or False`; empty where nothing is said.
        constraints: `greater than: 0, less than: 9`; empty where there are none.
    """

    name: str
    annotation: str
    note: str
    constraints: str


@dataclass(frozen=True, slots=True)
class DSPyPrompt:
    """The adapter that printed a prompt, the fields it wants, in its order, and its instructions.

    `instructions` are lines, without DSPy's indent; their words are the signature's author's.
    """

    adapter: Adapter
    fields: tuple[Field, ...]
    instructions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Entry:
    """A field in the numbered list."""

    name: str
    annotation: str
    constraints: str


def read_prompt(messages: Sequence[Mapping[str, Any]]) -> DSPyPrompt:
    """Read the system message at the head of a request; the other messages are not looked at.

    Raises:
        UnknownPrompt: it is not DSPy's to the letter.
    """
    text = _system_text(messages)
    inputs, outputs, structure = _parts(text)
    wanted, given = _entries(outputs), _entries(inputs)
    adapter, notes = _read_structure(structure, [entry.name for entry in given])
    if list(notes) != [entry.name for entry in wanted]:
        raise UnknownPrompt("list and structure name different fields")
    fields = (Field(e.name, e.annotation, notes[e.name], e.constraints) for e in wanted)
    return DSPyPrompt(adapter, tuple(fields), _instructions(text))


def _system_text(messages: Sequence[Mapping[str, Any]]) -> str:
    if not messages or messages[0].get("role") != "system":
        raise UnknownPrompt("no system message")
    texts = texts_of(messages[0])  # a list of one part by the Responses API
    if len(texts) != 1 or not texts[0].startswith(INPUTS_LINE + "\n"):
        raise UnknownPrompt("another system message")
    return texts[0]


def _parts(text: str) -> tuple[list[str], list[str], str]:
    """Lines of the inputs, lines of the outputs, text of the structure."""
    lines = text.split("\n")
    marks = [
        _only_place(lines, line)
        for line in (INPUTS_LINE, OUTPUTS_LINE, STRUCTURE_LINE, OBJECTIVE_LINE)
    ]
    inputs, outputs, structure = (lines[a + 1 : b] for a, b in pairwise(marks))
    if not all(line.startswith(INSTRUCTION_INDENT) for line in lines[marks[-1] + 1 :]):
        raise UnknownPrompt("an instruction that is not indented")
    return inputs, outputs, "\n".join(structure)


def _instructions(text: str) -> tuple[str, ...]:
    lines = text.partition(f"\n{OBJECTIVE_LINE}\n")[2].split("\n")
    return tuple(line.removeprefix(INSTRUCTION_INDENT) for line in lines)


def _only_place(lines: list[str], line: str) -> int:
    if lines.count(line) != 1:
        raise UnknownPrompt(f"not exactly one line {line!r}")
    return lines.index(line)


def _entries(lines: list[str]) -> list[_Entry]:
    """The fields of one numbered list; a description may run over many lines."""
    starts = [place for place, line in enumerate(lines) if _ENTRY.match(line)]
    if (starts and starts[0] != 0) or (not starts and lines != [""]):
        raise UnknownPrompt("a list that does not begin with a field")
    bounds = pairwise([*starts, len(lines)])
    return [_entry(number, lines[a:b]) for number, (a, b) in enumerate(bounds, 1)]


def _entry(number: int, lines: list[str]) -> _Entry:
    match = _ENTRY.match(lines[0])
    if match is None or match[1] != str(number):
        raise UnknownPrompt("a list that does not count from one")
    constraints = [line for line in lines[1:] if line.startswith(CONSTRAINTS)]
    # DSPy prints one such line, and prints it last; any other is part of a description
    is_dspys = len(constraints) == 1 and lines[-1] == constraints[0]
    return _Entry(match[2], match[3], lines[-1].removeprefix(CONSTRAINTS) if is_dspys else "")


def _read_structure(text: str, inputs: list[str]) -> tuple[Adapter, dict[str, str]]:
    """The adapter, and what it says of each output field; `inputs` must come before them."""
    if not text.startswith("\n"):
        raise UnknownPrompt("no empty line before the structure")
    blocks = text[1:].split("\n\n")
    if blocks[0] == JSON_INPUTS_LINE:
        return "json", _json_notes(blocks[1:], inputs)
    if blocks[-1] != COMPLETED_LINE:
        return "xml", _block_notes(blocks, inputs, _XML_BLOCK)
    if any(_BAML_BLOCK.fullmatch(block) for block in blocks):
        return "baml", _baml_notes(blocks[:-1], inputs)
    return "chat", _block_notes(blocks[:-1], inputs, _CHAT_BLOCK)


def _block_notes(blocks: list[str], inputs: list[str], pattern: re.Pattern[str]) -> dict[str, str]:
    """Notes of the blocks that follow those of the inputs, which have none."""
    split = max(len(inputs), 1)  # without inputs DSPy prints an empty block, without outputs too
    _check_inputs(blocks[:split], inputs, pattern)
    outputs = [] if blocks[split:] == [""] else blocks[split:]
    notes = [_field_block(block, pattern) for block in outputs]
    if len(dict(notes)) != len(notes):
        raise UnknownPrompt("a field twice")
    return dict(notes)


def _check_inputs(blocks: list[str], inputs: list[str], pattern: re.Pattern[str]) -> None:
    given = [] if blocks == [""] else [_field_block(block, pattern) for block in blocks]
    if given != [(name, "") for name in inputs]:
        raise UnknownPrompt("list and structure name different inputs")


def _field_block(block: str, pattern: re.Pattern[str]) -> tuple[str, str]:
    match = pattern.fullmatch(block)
    if match is None or match["value"] != match["name"]:
        raise UnknownPrompt("a block that DSPy does not print")
    return match["name"], match["note"] or ""


def _json_notes(blocks: list[str], inputs: list[str]) -> dict[str, str]:
    if blocks[-2:-1] != [JSON_OUTPUTS_LINE]:
        raise UnknownPrompt("no JSON object of outputs")
    _check_inputs(blocks[:-2], inputs, _CHAT_BLOCK)
    try:
        values = json.loads(blocks[-1])
    except (ValueError, RecursionError):
        raise UnknownPrompt("outputs are not JSON") from None
    if json.dumps(values, indent=2, ensure_ascii=False) != blocks[-1]:
        raise UnknownPrompt("JSON that DSPy does not print")
    return {name: _json_note(name, value) for name, value in values.items()}


def _json_note(name: str, value: object) -> str:
    match = re.fullmatch(_VALUE, value, re.DOTALL) if isinstance(value, str) else None
    if match is None or match["value"] != name:
        raise UnknownPrompt("a value that DSPy does not print")
    return match["note"] or ""


def _baml_notes(blocks: list[str], inputs: list[str]) -> dict[str, str]:
    """No notes: BAMLAdapter draws its types for people, so that two of them can look the same."""
    _check_inputs(blocks[: len(inputs)], inputs, _CHAT_BLOCK)
    matches = [_BAML_BLOCK.fullmatch(block) for block in blocks[len(inputs) :]]
    if not all(matches):
        raise UnknownPrompt("a block that BAMLAdapter does not print")
    return {match["name"]: "" for match in matches if match}
