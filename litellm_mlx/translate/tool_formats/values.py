"""How single arguments are written by families that put them one by one between texts.

A string that may be anything is written as it is; every other value is JSON. So what a reader
makes of a text never depends on what the text looks like, only on the tool's schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.json_schema import ANNOTATIONS, map_subschemas
from litellm_mlx.translate.tool_formats.form import Schema, Tool

# How a value stands in the text: as it is; as it is or `null`; as JSON.
Kind = Literal["raw", "raw_or_null", "json"]

_PLAIN_KEY = re.compile(r"[\w.$@/ -]+")
_OBJECT_KEYWORDS = ANNOTATIONS | {
    *("type", "properties", "required", "additionalProperties"),
    *("$defs", "definitions", "$schema", "$id", "id"),
}
_STRING: Schema = {"type": "string"}
_NULL: Schema = {"type": "null"}


@dataclass(frozen=True, slots=True)
class Argument:
    """One named argument of a tool."""

    name: str
    schema: Schema
    is_required: bool

    @property
    def kind(self) -> Kind:
        """How its value is written."""
        return kind_of(self.schema)

    @property
    def choices(self) -> tuple[str, ...] | None:
        """The strings that it can be, where the schema lists them and nothing else."""
        return choices_of(self.schema)


def arguments_of(tool: Tool) -> Iterator[Argument]:
    """A tool's arguments in the schema's order.

    Raises:
        ConstraintError: a name that such a syntax cannot hold.
    """
    schema = tool.parameters
    required, properties = schema.get("required", ()), schema.get("properties", {})
    for name in dict.fromkeys([*properties, *required]):
        if not _PLAIN_KEY.fullmatch(name):
            raise ConstraintError(
                f"tool {tool.name!r}: this model writes each argument's name between markup, "
                f"which {name!r} would break; rename it"
            )
        value = properties.get(name)
        part = standalone(value if isinstance(value, Mapping) else {}, schema)
        yield Argument(name, part, name in required)


def is_exact(tool: Tool) -> bool:
    """Whether the arguments one by one say all that the schema says."""
    return _OBJECT_KEYWORDS.issuperset(tool.parameters)


def kind_of(schema: Schema) -> Kind:
    """How a value of this schema is written."""
    core = core_of(schema)
    if core == _STRING or choices_of(schema) is not None:
        return "raw"
    options = core.get("anyOf")
    if core == {"type": ["string", "null"]} or core == {"type": ["null", "string"]}:
        return "raw_or_null"
    if isinstance(options, list) and len(options) == 2 and set(core) == {"anyOf"}:
        cores = [core_of(option) for option in options if isinstance(option, Mapping)]
        if _STRING in cores and _NULL in cores:
            return "raw_or_null"
    return "json"


def choices_of(schema: Schema) -> tuple[str, ...] | None:
    """The strings of an `enum` or `const`; `None` where it has other values or other keywords."""
    core = core_of(schema)
    if not core.keys() <= {"type", "enum", "const"} or core.get("type", "string") != "string":
        return None
    values = core.get("enum", [core["const"]] if "const" in core else None)
    if not isinstance(values, list) or not values or ("enum" in core and "const" in core):
        return None
    return tuple(values) if all(isinstance(v, str) for v in values) else None


def standalone(schema: Schema, root: Schema) -> Schema:
    """A subschema with all that its references need."""
    if '"$ref"' not in json.dumps(schema):
        return schema
    return {**_rebased(schema), "$defs": {"tool": _rebased(root)}}


def _rebased(schema: Schema) -> dict[str, Any]:
    """A copy whose references go through `#/$defs/tool`."""

    def change(sub: Any) -> Any:
        return _rebased(sub) if isinstance(sub, Mapping) else sub

    copy = map_subschemas(dict(schema), change)
    ref = copy.get("$ref")
    if isinstance(ref, str) and ref.startswith("#"):
        copy["$ref"] = "#/$defs/tool" + ref[1:]
    return copy


def core_of(schema: Schema) -> dict[str, Any]:
    """A schema without the keywords that say nothing about validity."""
    return {key: value for key, value in schema.items() if key not in ANNOTATIONS}
