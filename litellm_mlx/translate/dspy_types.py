"""Python types as DSPy writes them in its list of fields: `Literal['a', 2]`, `dict[str, int]`.

Owns reading them. They are followed by `): ` and a description, which may look like a type too.
"""

from __future__ import annotations

import re
from typing import Any

from litellm_mlx.translate.dspy_prompt import UnknownPrompt

Member = str | int | bool | None

_END = "):"
_LITERAL = "Literal["
_CONSTANTS: dict[str, bool | None] = {"True": True, "False": False, "None": None}
# a text with both quotes in it has its single ones escaped, and nothing else is
_ESCAPED = r"'(?P<escaped>(?:[^'\\]|\\')*)'"
_PLAIN = r"'(?P<single>[^']*)'|\"(?P<double>[^\"]*)\""
_MEMBER = re.compile(rf"{_PLAIN}|(?P<integer>-?[0-9]+)|(?P<constant>True|False|None)")
_MEMBER_WITH_ESCAPES = re.compile(rf"{_ESCAPED}|{_MEMBER.pattern}")

_NAMED = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "NoneType": {"type": "null"},
    "list": {"type": "array"},
    "dict": {"type": "object"},
}


def literal_members(annotation: str) -> tuple[Member, ...]:
    """The values of a `Literal[...]` that a line of the list begins with.

    Raises:
        UnknownPrompt: none, or one with values that are not text, integers, booleans or None.
    """
    if not annotation.startswith(_LITERAL):
        raise UnknownPrompt("a type that is no Literal")
    pattern = _MEMBER_WITH_ESCAPES if "\\'" in annotation else _MEMBER
    members: list[Member] = []
    place = len(_LITERAL)
    while True:
        match = pattern.match(annotation, place)
        if match is None:
            raise UnknownPrompt("a Literal that DSPy does not print")
        members.append(_member(match))
        place = match.end()
        if annotation.startswith("]" + _END, place):
            return tuple(members)
        if not annotation.startswith(", ", place):
            raise UnknownPrompt("a Literal that DSPy does not print")
        place += len(", ")


def _member(match: re.Match[str]) -> Member:
    kind, text = match.lastgroup, match[match.lastgroup or 0]
    if kind == "integer":
        return int(text)
    if kind == "constant":
        return _CONSTANTS[text]
    if kind == "escaped":
        return text.replace("\\'", "'")
    return text


def annotation_text(annotation: str) -> str | None:
    """The type that a line of the list begins with; `None` where quotes could hide its end."""
    text = annotation.partition(_END)[0]
    return None if "'" in text or '"' in text else text


def arguments(text: str) -> list[str]:
    """What stands between the outer brackets: `["str", "list[int]"]` of `dict[str, list[int]]`."""
    inner = text.partition("[")[2].removesuffix("]")
    found, depth = [""], 0
    for part in re.split(r"(\[|\]|, )", inner):
        depth += (part == "[") - (part == "]")
        if part == ", " and depth == 0:
            found.append("")
        else:
            found[-1] += part
    return found


def schema_of(text: str) -> dict[str, Any]:
    """The JSON schema of a type of builtins; `{}`, any JSON, of one whose name says too little."""
    if text in _NAMED:
        return dict(_NAMED[text])
    if "[" not in text:
        return {}
    inner = [schema_of(argument) for argument in arguments(text)]
    match text.partition("[")[0]:
        case "list":
            return {"type": "array", "items": inner[0]}
        case "dict":
            return {"type": "object", "additionalProperties": inner[-1]}
        case "Union":
            return {"anyOf": inner}
    return {}
