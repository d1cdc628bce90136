"""The format of the answer that a stock DSPy prompt wants, where DSPy itself sends less, or worse.

JSONAdapter's schema is repaired from its prompt, or taken from it; the fields of ChatAdapter and
XMLAdapter become a structure. Everything fails open: a prompt that is not DSPy's to the letter,
or one that could be read in two ways, is left with the format that was sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.structure import FreeText, OneOf, Part, Pattern, Seq, Text, json_part
from litellm_mlx.translate.dspy_fields import FieldType, field_type
from litellm_mlx.translate.dspy_prompt import (
    COMPLETED_LINE,
    DSPyPrompt,
    Field,
    UnknownPrompt,
    read_prompt,
)
from litellm_mlx.translate.dspy_react import FIELDS as REACT_FIELDS
from litellm_mlx.translate.dspy_react import REPAIR as REACT_REPAIR
from litellm_mlx.translate.dspy_react import ReactStep, react_step
from litellm_mlx.translate.dspy_repair import Fields, printed_schema, repaired_schema
from litellm_mlx.translate.dspy_types import annotation_text

# The title of the Pydantic model that JSONAdapter makes of a signature.
SCHEMA_NAME = "DSPyProgramOutputs"

_HEADER = "[[ ##"

# Text of an XML element: no markup, no `]]>`, no character that XML has not.
_MARKUP = r"\]<&>\x00-\x08\x0B\x0C\x0E-\x1F\uFFFE\uFFFF"
_ENTITY = "&(?:lt|gt|amp|quot|apos);"
_XML_TEXT = rf"(?:\]*(?:[^{_MARKUP}]|{_ENTITY})|\]?>)*\]*"
_XML_VISIBLE_TEXT = rf"\s*(?:[^\s{_MARKUP}]|{_ENTITY}){_XML_TEXT}"

# What reading a text of unknown origin may end in; a request must never fail for our reading it.
_UNREADABLE = (
    UnknownPrompt,
    ConstraintError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class DSPyFormat:
    """What to enforce in place of what was sent: a JSON schema or a structure.

    Attributes:
        repairs: what was done, for the response, as "schema from prompt".
    """

    repairs: tuple[str, ...]
    schema: dict[str, Any] | None = None
    structure: Part | None = None


def repaired_format(
    messages: Sequence[Mapping[str, Any]], response_format: Mapping[str, Any] | None
) -> DSPyFormat | None:
    """Give the format that a DSPy prompt asks for; `None` leaves the request as it was sent.

    Reads the first message alone, where it is DSPy's system message, and never raises.

    Cost: under a millisecond for a prompt of a few fields; a prefix check for other requests.
    """
    try:
        return _format(read_prompt(messages), response_format)
    except _UNREADABLE:
        return None


def _format(prompt: DSPyPrompt, response_format: Mapping[str, Any] | None) -> DSPyFormat | None:
    fields = {field: field_type(field, prompt.adapter) for field in prompt.fields}
    is_json = prompt.adapter in ("json", "baml")
    if (step := _react_step(prompt, fields, response_format)) is not None:
        return DSPyFormat((REACT_REPAIR, *step.unheld), structure=step.part)
    if is_json and response_format in (None, {"type": "json_object"}) and fields:
        return DSPyFormat(("schema from prompt",), schema=printed_schema(fields))
    if is_json and response_format is not None:
        schema, repairs = repaired_schema(_dspys_schema(response_format), fields)
        return DSPyFormat(tuple(repairs), schema=schema) if repairs else None
    if response_format is not None or not fields:
        return None
    if prompt.adapter == "chat":
        return DSPyFormat(("chat fields",), structure=_chat(fields))
    return DSPyFormat(("XML fields",), structure=_xml(fields))


def _react_step(
    prompt: DSPyPrompt, fields: Fields, response_format: Mapping[str, Any] | None
) -> ReactStep | None:
    """A step of `dspy.ReAct`, where its instructions say what each tool takes."""
    sent = [None, {"type": "json_object"}] if prompt.adapter == "json" else [None]
    if tuple(field.name for field in fields) != REACT_FIELDS or response_format not in sent:
        return None
    if prompt.adapter not in ("json", "chat"):
        return None
    words = fields[prompt.fields[1]].words
    try:
        return react_step(prompt.adapter, prompt.instructions, words or ())
    except UnknownPrompt:
        return None


def _dspys_schema(response_format: Mapping[str, Any]) -> dict[str, Any]:
    match response_format:
        case {"type": "json_schema", "json_schema": {"name": name, "schema": dict(schema)}}:
            if name == SCHEMA_NAME:
                return schema
    raise UnknownPrompt("a response_format that DSPy does not send")


def _chat(fields: Fields) -> Part:
    """A header and a value for each field, as ChatAdapter formats its examples."""
    parts: list[Part] = []
    gap = ""
    for field, kind in fields.items():
        parts += [Text(f"{gap}[[ ## {field.name} ## ]]\n"), _chat_value(kind)]
        # a text has the empty line within it, so that one is enough of a model in a hurry
        gap = "\n" if kind.is_text else "\n\n"
    return Seq((*parts, Text(gap + COMPLETED_LINE)))


def _chat_value(kind: FieldType) -> Part:
    if kind.words is not None:
        return _one_of(kind.words)
    return FreeText((_HEADER,)) if kind.is_text else json_part(kind.schema)


def _one_of(words: Sequence[str]) -> Part:
    """One of some texts; DSPy's parsers strip a field, and take a header for the next one."""
    if any(word != word.strip() or _HEADER in word for word in words):
        raise UnknownPrompt("a value that would not survive DSPy's parser")
    options = tuple(Text(word) for word in dict.fromkeys(words))
    return options[0] if len(options) == 1 else OneOf(options)


def _xml(fields: Fields) -> Part:
    parts: list[Part] = []
    gap = ""
    for field, kind in fields.items():
        # a text has the line's end within it
        end = f"</{field.name}>" if kind.is_text else f"\n</{field.name}>"
        parts += [Text(f"{gap}<{field.name}>\n"), _xml_value(field, kind), Text(end)]
        gap = "\n\n"
    return Seq(tuple(parts))


def _xml_value(field: Field, kind: FieldType) -> Part:
    if kind.words is not None:
        return _one_of([escape(word) for word in kind.words])
    if kind.is_text:
        # DSPy takes an empty element for an empty object, which a dspy.Code is not
        may_be_empty = bool(field.note) or annotation_text(field.annotation) == "str"
        return Pattern(_XML_TEXT if may_be_empty else _XML_VISIBLE_TEXT)
    if not _is_without_text(kind.schema):
        raise UnknownPrompt("JSON that may hold markup")
    return json_part(kind.schema)


def _is_without_text(schema: Any) -> bool:
    """Whether no JSON of a schema can have a `<` or `&`, which DSPy reads as XML first."""
    match schema:
        case {"type": "integer" | "number" | "boolean" | "null"}:
            return True
        case {"type": "array", "items": items}:
            return "prefixItems" not in schema and _is_without_text(items)
        case {"type": "array", "prefixItems": [*items], "maxItems": count}:
            return count == len(items) and all(map(_is_without_text, items))
        case {"anyOf": [*options]}:
            return all(map(_is_without_text, options))
    return False
