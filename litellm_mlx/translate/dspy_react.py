"""The tools of a `dspy.ReAct` step, read from the instructions that DSPy writes for it.

A step has fields for a tool's name and its arguments. DSPy's note says only that the arguments are
some object; the instructions list each tool with what it takes, a line each, in Python's notation.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.constraint import json_schema_constraint
from litellm_mlx.grammar.structure import FreeText, JsonPart, OneOf, Part, Seq, Text, json_part
from litellm_mlx.grammar.tiers import why_unusable
from litellm_mlx.translate.dspy_prompt import COMPLETED_LINE, Adapter, UnknownPrompt

# DSPy's sentences (predict/react.py and adapters/types/tool.py); a test asks the installed DSPy.
TOOLS_LINE = (
    "When selecting the next_tool_name and its next_tool_args, the tool must be one of:",
    "",
)
END_LINE = "When providing `next_tool_args`, the value inside the field must be in JSON format"
TAKES = " It takes arguments "

FIELDS = ("next_thought", "next_tool_name", "next_tool_args")
REPAIR = "arguments by tool"

_MAX_LINE = 50_000  # characters that Python's parser is given


@dataclass(frozen=True, slots=True)
class ReactStep:
    """What one step is, and the arguments whose schemas no text can be held to."""

    part: Part
    unheld: tuple[str, ...] = ()


def react_step(adapter: Adapter, instructions: Sequence[str], names: Sequence[str]) -> ReactStep:
    """The whole answer of one step: a thought, a tool, and arguments that this tool takes.

    An argument whose schema is malformed, or accepts nothing, may be any JSON, or is left out where
    DSPy would refuse whatever came; all others are held.

    Args:
        adapter: how the fields are written.
        instructions: lines of the signature's instructions.
        names: the tools, as the field's type lists them.

    Raises:
        UnknownPrompt: these are not the instructions that ReAct writes.
    """
    tools: dict[str, JsonPart] = {}
    unheld: list[str] = []
    for tool, arguments in _tools(instructions, names):
        odd = {n: _instead(schema) for n, schema in arguments.items() if not _is_usable(schema)}
        for name, instead in odd.items():
            unheld.append(f"{'any JSON' if instead else 'nothing'} for {name!r} of {tool!r}")
        tools[tool] = json_part(_arguments_schema(arguments, odd))
    part = _json_step(tools) if adapter == "json" else _chat_step(tools)
    return ReactStep(part, tuple(unheld))


def _tools(
    instructions: Sequence[str], names: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    start = len(instructions) - 1 - len(names)
    is_react = start >= 2 and instructions[-1] == END_LINE
    if not is_react or tuple(instructions[start - 2 : start]) != TOOLS_LINE:
        raise UnknownPrompt("instructions that ReAct does not write")
    for number, (name, line) in enumerate(zip(names, instructions[start:-1], strict=True), 1):
        yield name, _arguments(line, f"({number}) {name}")


def _arguments(line: str, opening: str) -> dict[str, Any]:
    """What a tool takes; a description may hold the same words, so only one reading may work."""
    rest = line.removeprefix(opening)
    is_tool = rest.startswith((".", ", whose description is <desc>")) and line.endswith("}.")
    if rest == line or not is_tool or len(line) > _MAX_LINE:
        raise UnknownPrompt("a line that is no tool")
    places = [match.end() for match in re.finditer(re.escape(TAKES), rest)]
    found = [value for place in places if isinstance(value := _python(rest[place:-1]), dict)]
    if len(found) != 1:
        raise UnknownPrompt("arguments that could be read in two ways")
    return dict(found[0])


def _python(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _is_usable(schema: Any) -> bool:
    try:
        source = json_schema_constraint(schema).source
    except ConstraintError:
        return False
    return why_unusable(json.loads(source)) is None


def _instead(schema: Any) -> bool:
    """What an argument of an odd schema may be: DSPy validates those that name a type."""
    return not isinstance(schema, Mapping) or schema.get("type") in (None, "Any")


def _arguments_schema(arguments: Mapping[str, Any], odd: Mapping[str, bool]) -> dict[str, Any]:
    """An object of the arguments; those with a default, and those of no type, may be left out.

    One of no type may be Python's `**kwargs`, which stands for any others.
    """
    required = [
        name
        for name, schema in arguments.items()
        if odd.get(name, True) and schema and "default" not in schema
    ]
    return {
        "type": "object",
        "properties": {n: odd.get(n, schema) for n, schema in arguments.items()},
        "required": required,
        "additionalProperties": {} in arguments.values(),
    }


def _json_step(tools: Mapping[str, JsonPart]) -> Part:
    """As JSONAdapter wants it; one grammar over all tools, so that the thought is parsed once."""
    thought, name, arguments = (json.dumps(field) + ": " for field in FIELDS)
    calls = tuple(
        Seq((Text(f"{name}{json.dumps(tool)}, {arguments}"), part)) for tool, part in tools.items()
    )
    text = json_part({"type": "string"})
    return Seq((Text("{" + thought), text, Text(", "), OneOf(calls), Text("}")))


def _chat_step(tools: Mapping[str, JsonPart]) -> Part:
    thought, name, arguments = (f"[[ ## {field} ## ]]\n" for field in FIELDS)
    calls = tuple(Seq((Text(f"{tool}\n\n{arguments}"), part)) for tool, part in tools.items())
    return Seq(
        (
            Text(thought),
            FreeText(("[[ ##",)),
            Text(f"\n{name}"),
            OneOf(calls),
            Text(f"\n\n{COMPLETED_LINE}"),
        )
    )
