"""Which constraint a request asks for, under whichever of its names.

`response_format` is OpenAI's, `structured_outputs` vLLM's, `guided_*` vLLM's older names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from litellm_mlx.errors import ConstraintError, UnsupportedParameterError
from litellm_mlx.grammar.constraint import (
    choice_constraint,
    grammar_constraint,
    json_object_constraint,
    json_schema_constraint,
    regex_constraint,
)
from litellm_mlx.grammar.structure import (
    JsonPart,
    OneOf,
    Part,
    Pattern,
    Text,
    structure_constraint,
    structure_of,
)
from litellm_mlx.translate.dspy_format import repaired_format
from litellm_mlx.translate.instructor_prompt import REPAIR, instructed_part
from litellm_mlx.translate.params import RequestParams, StructuredOutputs
from litellm_mlx.translate.response_format import constraint_of
from litellm_mlx.translate.structural_tag import structural_tag_part
from litellm_mlx.types import Backend, Constraint

Make = Callable[[Any, Backend], Constraint]


def wanted_constraint(params: RequestParams, backend: Backend) -> Constraint | None:
    """The one constraint that a request names; `None` for free text.

    Raises:
        UnsupportedParameterError: two are named, or one in a shape that is not known.
        ConstraintError: what is named is not a usable schema, regex, choice or grammar.
    """
    named = list(_named(params))
    if len(named) > 1:
        raise UnsupportedParameterError(
            f"{named[0][0]} and {named[1][0]} both say what the text must be; send one of them"
        )
    if not named:
        return None
    _, value, make = named[0]
    return make(value, backend)


@dataclass(frozen=True, slots=True)
class Repaired:
    """A constraint that a known prompt asks for, and how it differs from what was sent."""

    constraint: Constraint
    repairs: tuple[str, ...]


def repaired_constraint(
    messages: Sequence[Mapping[str, Any]], params: RequestParams, backend: Backend
) -> Repaired | None:
    """What DSPy's or instructor's own prompt says that the answer must be.

    `None` leaves the request as it is. Only where it names nothing else than `response_format`,
    and never an error.
    """
    named = {name for name, _, _ in _named(params)}
    if named - {"response_format"} or params.guided_decoding_backend is not None:
        return None
    if messages and messages[-1].get("role") == "assistant":  # the answer has begun already
        return None
    try:
        return _by_dspy(messages, params, backend) or _by_instructor(messages, params, backend)
    except ConstraintError:
        return None


def _by_dspy(
    messages: Sequence[Mapping[str, Any]], params: RequestParams, backend: Backend
) -> Repaired | None:
    found = repaired_format(messages, params.response_format)
    if found is None:
        return None
    if found.structure is not None:
        return Repaired(structure_constraint(found.structure, backend), found.repairs)
    return Repaired(json_schema_constraint(found.schema or {}, backend), found.repairs)


def _by_instructor(
    messages: Sequence[Mapping[str, Any]], params: RequestParams, backend: Backend
) -> Repaired | None:
    part = instructed_part(messages, params.response_format)
    if part is None:
        return None
    if isinstance(part, JsonPart):
        return Repaired(Constraint("json_schema", part.source, backend), (REPAIR,))
    return Repaired(structure_constraint(part, backend), (REPAIR,))


def part_of(constraint: Constraint) -> Part:
    """The constraint as a part of a larger text.

    Raises:
        UnsupportedParameterError: a grammar, which has rules of its own.
    """
    if constraint.kind == "json_schema":
        return JsonPart(constraint.source)
    if constraint.kind == "regex":
        return Pattern(constraint.source)
    if constraint.kind == "choice":
        return OneOf(tuple(Text(choice) for choice in json.loads(constraint.source)))
    if constraint.kind == "structure":
        return structure_of(constraint)
    raise UnsupportedParameterError(
        "a grammar cannot be combined with tools; send one of them, or use a structural tag"
    )


def _named(params: RequestParams) -> Iterator[tuple[str, Any, Make]]:
    """Every constraint that the request names: the parameter, its value and what reads it."""
    response_format = params.response_format
    if response_format is not None and response_format.get("type") == "text":
        constraint_of(response_format, "llguidance")  # asks for nothing, and must say no more
    elif response_format is not None:
        yield "response_format", response_format, _by_response_format
    for name, make in _GUIDED.items():
        value = getattr(params, name)
        if value is not None:
            yield name, value, make
    if params.structured_outputs is not None:
        yield from _in_structured_outputs(params.structured_outputs)


def _in_structured_outputs(given: StructuredOutputs) -> Iterator[tuple[str, Any, Make]]:
    found = [
        (f"structured_outputs.{name}", value, make)
        for name, value, make in (
            ("json", given.json_, _json),
            ("regex", given.regex, regex_constraint),
            ("choice", given.choice, choice_constraint),
            ("grammar", given.grammar, grammar_constraint),
            ("structural_tag", given.structural_tag, _structural_tag),
            ("json_object", given.json_object or None, _json_object),
        )
        if value is not None
    ]
    if not found:
        raise UnsupportedParameterError(
            "structured_outputs names no constraint; give one of json, regex, choice, grammar, "
            "structural_tag or json_object"
        )
    yield from found


def _by_response_format(value: Mapping[str, Any], backend: Backend) -> Constraint:
    if value.get("type") == "structural_tag":
        return _structural_tag(value, backend)
    constraint = constraint_of(value, backend)
    assert constraint is not None, "free text is no constraint"
    return constraint


def _json(schema: Any, backend: Backend) -> Constraint:
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError as error:
            raise ConstraintError(f"the JSON schema is not JSON: {error}") from None
    return json_schema_constraint(schema, backend)


def _json_object(_: bool, backend: Backend) -> Constraint:
    return json_object_constraint(backend)


def _structural_tag(value: Any, backend: Backend) -> Constraint:
    return structure_constraint(structural_tag_part(value), backend)


_GUIDED: Mapping[str, Make] = {
    "guided_json": _json,
    "guided_regex": regex_constraint,
    "guided_choice": choice_constraint,
    "guided_grammar": grammar_constraint,
}
