"""Random texts under the bitmask: whatever ends is valid by other people's validators.

Each schema's texts are judged by json.loads, by jsonschema against the schema as it was given,
and by Pydantic where a type stands behind it. Nothing here can fail by chance: one bad text in
any number of draws is a bug. How many texts end in time is by seed, and so fixed.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime
import decimal
import enum
import ipaddress
import itertools
import json
import math
import random
import re
import uuid
from typing import Annotated, Any, Literal, NamedTuple

import jsonschema
import pydantic
import pytest
from pydantic import BaseModel, Field, TypeAdapter
from typing_extensions import TypedDict

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.compiler import compile_constraint
from litellm_mlx.grammar.constraint import json_schema_constraint
from litellm_mlx.grammar.formats import FORMATS
from litellm_mlx.types import Backend
from tests.grammar_sampling import (
    Prefer,
    accepts,
    any_token,
    draw,
    small_vocabulary,
    tokens_of,
)

SEED = 20261121
VALIDATOR = jsonschema.Draft202012Validator
# Where `jsonpointer` is installed, jsonschema 4.26 takes no number alone for a relative pointer,
# which the draft does: "0" is the value itself.
FORMAT_CHECKER = copy.copy(VALIDATOR.FORMAT_CHECKER)
FORMAT_CHECKER.checkers = {
    name: check
    for name, check in VALIDATOR.FORMAT_CHECKER.checkers.items()
    if name != "relative-json-pointer"
}


def _check(text: bytes, schema: Any, adapter: TypeAdapter[Any] | None) -> Any:
    value = json.loads(text)
    VALIDATOR(schema, format_checker=FORMAT_CHECKER).validate(value)
    if adapter is not None:
        adapter.validate_python(value)
    _check_numbers(value)
    return value


def _check_numbers(value: Any) -> None:
    if isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            _check_numbers(part)
    elif isinstance(value, int | float):
        assert math.isfinite(value) and abs(value) < 10**120
        assert not isinstance(value, int) or abs(value) < 10**20


def _draw_and_check(
    schema: Any,
    adapter: TypeAdapter[Any] | None = None,
    *,
    num_draws: int = 30,
    backend: Backend = "llguidance",
    prefer: Prefer = any_token,
    max_tokens: int = 400,
) -> int:
    """Number of texts that ended; each of them has passed every check."""
    print("seed", SEED)
    vocabulary = small_vocabulary()
    index = compile_constraint(json_schema_constraint(schema, backend), vocabulary)
    rng, num_ended = random.Random(SEED), 0
    for _ in range(num_draws):
        text = draw(index, vocabulary, rng, prefer=prefer, max_tokens=max_tokens)
        if text is not None:
            _check(text, schema, adapter)
            num_ended += 1
    return num_ended


# --- what DSPy sends --------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Node(BaseModel):
    id: int
    label: str
    type: Literal["Person", "Place"]


class Edge(BaseModel):
    source: int
    target: int
    weight: float = Field(default=1.0, ge=0, lt=1)


class KnowledgeGraph(BaseModel):
    nodes: list[Node]
    edges: list[Edge]


class Tree(BaseModel):
    value: int
    children: list[Tree]


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    good: bool


class Owner(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


class Point(NamedTuple):
    x: float
    y: float


class Movie(TypedDict):
    title: str
    year: int


@dataclasses.dataclass
class Job:
    name: str
    pay: float


class Bounded(BaseModel):
    share: float = Field(gt=0, le=0.5)
    count: int = Field(ge=1, le=20)
    temperature: float = Field(gt=-273.15)
    code: str = Field(pattern=r"^[A-Z]{2}\d{3}$")
    name: str = Field(min_length=1, max_length=5)
    steps: int = Field(multiple_of=5)


class Odd(BaseModel):
    """Property names that are also keywords."""

    format: str
    title: int
    type: Literal["properties"]


TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
    "optional": int | None,
    "union": int | str | bool | None,
    "models": Cat | Dog,
    "literal": Literal["a", "b", "ü"],
    "mixed literal": Literal[1, "a", True, None],
    "single literal": Literal["only"],
    "enum": Colour,
    "int enum": Level,
    "list": list[int],
    "nested list": list[list[str]],
    "tuple": tuple[int, str, bool],
    "named tuple": Point,
    "typed dict": Movie,
    "dataclass": Job,
    "model": KnowledgeGraph,
    "list of models": list[Node],
    "recursive": Tree,
    "discriminated": Owner,
    "bounded": Bounded,
    "odd": Odd,
    "dict": dict[str, int],
    "bytes": bytes,
    "decimal": decimal.Decimal,
    "date": datetime.date,
    "datetime": datetime.datetime,
    "time": datetime.time,
    "timedelta": datetime.timedelta,
    "uuid": uuid.UUID,
}
# A union with str has a looser schema than the type: any text validates against `decimal`'s.
SCHEMA_ONLY = {"decimal"}


def _wrapped(kind: Any) -> dict[str, Any]:
    """The schema as DSPy builds it: one object of the output fields, all of them required."""
    model = pydantic.create_model("DSPyProgramOutputs", reasoning=(str, ...), answer=(kind, ...))
    schema = model.model_json_schema()
    _close(schema)
    return schema


def _close(schema: Any) -> None:
    """Close objects and require their properties, as DSPy does outside `anyOf`."""
    if isinstance(schema, dict):
        if "properties" in schema and isinstance(schema["properties"], dict):
            schema["additionalProperties"] = False
            schema["required"] = list(schema["properties"])
        for part in schema.values():
            _close(part)


@pytest.mark.parametrize("name", TYPES)
def test_random_texts_validate_as_their_type(name: str) -> None:
    adapter = None if name in SCHEMA_ONLY else TypeAdapter(TYPES[name])
    schema = TypeAdapter(TYPES[name]).json_schema()
    assert _draw_and_check(schema, adapter) >= 12


@pytest.mark.parametrize("name", [*TYPES])
def test_random_texts_of_dspys_schemas_validate_and_keep_their_order(name: str) -> None:
    schema = _wrapped(TYPES[name])
    index = compile_constraint(json_schema_constraint(schema), small_vocabulary())
    rng, ended = random.Random(SEED), 0
    for _ in range(15):
        text = draw(index, small_vocabulary(), rng, max_tokens=600)
        if text is not None:
            assert list(_check(text, schema, None)) == ["reasoning", "answer"]
            ended += 1
    assert ended >= 5


@pytest.mark.parametrize(
    "schema", [{}, True, {"type": "array"}, {"type": "object"}, {"title": "X"}]
)
def test_random_texts_without_a_type_are_json(schema: Any) -> None:
    assert _draw_and_check(schema, num_draws=60, max_tokens=800) >= 5


# --- the other backend --------------------------------------------------------------------------

CORE_TYPES = [
    *("str", "int", "float", "bool", "optional", "union", "literal", "single literal", "enum"),
    *("int enum", "list", "nested list", "bytes", "date", "time", "datetime", "uuid"),
]


@pytest.mark.parametrize("name", CORE_TYPES)
def test_random_texts_of_outlines_core_validate_as_their_type(name: str) -> None:
    adapter = TypeAdapter(TYPES[name])
    assert _draw_and_check(adapter.json_schema(), adapter, backend="outlines_core") >= 15


@pytest.mark.parametrize("model", [Node, Cat, Movie])
def test_random_objects_of_outlines_core_validate(model: Any) -> None:
    schema = TypeAdapter(model).json_schema()
    _close(schema)
    assert _draw_and_check(schema, TypeAdapter(model), backend="outlines_core") >= 15


# --- formats --------------------------------------------------------------------------------------

FORMAT_TYPES: dict[str, Any] = {
    "date": datetime.date,
    "time": datetime.time,
    "date-time": datetime.datetime,
    "duration": datetime.timedelta,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "ipv4network": ipaddress.IPv4Network,
    "ipv6network": ipaddress.IPv6Network,
    "ipv4interface": ipaddress.IPv4Interface,
    "ipv6interface": ipaddress.IPv6Interface,
    "ipvanyaddress": pydantic.IPvAnyAddress,
    "ipvanynetwork": pydantic.IPvAnyNetwork,
    "ipvanyinterface": pydantic.IPvAnyInterface,
    "uri": pydantic.AnyUrl,
    "http-url": pydantic.HttpUrl,
    "regex": re.Pattern,
    "uuid": uuid.UUID,
    "uuid1": pydantic.UUID1,
    "uuid4": pydantic.UUID4,
    "uuid7": pydantic.UUID7,
    "base64": pydantic.Base64Bytes,
    "base64url": pydantic.Base64UrlBytes,
}


@pytest.mark.parametrize("name", FORMATS)
def test_random_texts_of_a_format_are_what_python_takes(name: str) -> None:
    kind = FORMAT_TYPES.get(name)
    adapter = None if kind is None else TypeAdapter(kind)
    schema = {"type": "string", "format": name}
    assert _draw_and_check(schema, adapter, num_draws=60) >= 20


@pytest.mark.parametrize("name", ["email", "idn-email", "name-email"])
def test_random_addresses_are_what_email_validator_takes(name: str) -> None:
    pytest.importorskip("email_validator")
    adapter: TypeAdapter[Any] = TypeAdapter(pydantic.EmailStr)
    assert _draw_and_check({"type": "string", "format": name}, adapter, num_draws=60) >= 20


# --- numbers --------------------------------------------------------------------------------------

# Each goes on as long as it may: the sampler that a random model is not, but a bad one may be.
STUBBORN: dict[str, Prefer] = {
    "uniform": any_token,
    "digits": tokens_of(b"0123456789"),
    "zeros": tokens_of(b"0"),
    "nines": tokens_of(b"9"),
    "exponents": tokens_of(b"1eE9"),
    "small exponents": tokens_of(b"1eE9-"),
    "points": tokens_of(b"0."),
}
NUMBERS: list[dict[str, Any]] = [
    {"type": "number"},
    {"type": "integer"},
    {"type": ["integer", "null"]},
    {"type": "number", "minimum": 0},
    {"type": "number", "exclusiveMinimum": 0},
    {"type": "number", "exclusiveMaximum": 0},
    {"type": "number", "minimum": -1.5, "maximum": 2.25},
    {"type": "number", "minimum": -1e-5, "maximum": -1e-9},
    {"type": "number", "minimum": 0.5, "maximum": 0.5000000000000001},
    {"type": "integer", "minimum": 3},
    {"type": "integer", "minimum": 3, "maximum": 10**17},
    {"type": "integer", "maximum": 2**64},
    {"type": "integer", "multipleOf": 7},
    {"type": "integer", "multipleOf": 3, "minimum": 10},
    {"type": "number", "multipleOf": 2.5},
    {"multipleOf": 5, "type": ["number", "boolean"]},
    {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 3},
    {"enum": [1e-7, 1.5e16, 0.1, 2**53, -12]},
]


@pytest.mark.parametrize("name", STUBBORN)
@pytest.mark.parametrize("schema", NUMBERS, ids=json.dumps)
def test_numbers_end_and_parse_whatever_the_sampler_prefers(
    schema: dict[str, Any], name: str
) -> None:
    num_draws = 20 if name == "uniform" else 4
    ended = _draw_and_check(schema, num_draws=num_draws, prefer=STUBBORN[name], max_tokens=120)
    assert ended == num_draws


def test_open_schemas_write_no_runaway_number() -> None:
    schema = {"type": "array", "minItems": 5, "items": {"anyOf": [{"type": "number"}, {}]}}
    _draw_and_check(schema, prefer=tokens_of(b"0123456789eE,. "), max_tokens=600)


@pytest.mark.parametrize("backend", ["llguidance", "outlines_core"])
@pytest.mark.parametrize(
    "text",
    [
        *("0.30000000000000004", "1e-07", "1.5e+16", "9223372036854775807", "5e-324", "-0.0"),
        *("18446744073709551615", "0.00012345678901234567", "1.7976931348623157e+99"),
    ],
)
def test_ordinary_numbers_come_through(text: str, backend: Backend) -> None:
    vocabulary = small_vocabulary()
    # In an array: outlines_core lets a number that is the whole text end too early.
    schema = {"type": "array", "items": {"type": "number"}}
    index = compile_constraint(json_schema_constraint(schema, backend), vocabulary)
    assert accepts(index, vocabulary, f"[{text}, {text}]")


BOUNDS: list[float] = [0, 1, -1, 0.5, 10, 99.99, -0.5, 1e-9, 0.1, 1.0000000001, 1e15, 10**18]


def test_bounds_hold_exactly_for_texts_and_for_parsed_floats() -> None:
    """Every pair of bounds, inclusive or not, number or integer; texts that press to the bound."""
    print("seed", SEED)
    vocabulary, rng = small_vocabulary(), random.Random(SEED)
    preferences = [any_token, tokens_of(b"0."), tokens_of(b"9."), tokens_of(b"49.")]
    num_texts = 0
    for low, high in itertools.combinations(sorted(BOUNDS), 2):
        for lower, upper, kind in itertools.product(
            ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum"), ("number", "integer")
        ):
            schema = {"type": kind, lower: low, upper: high}
            try:
                index = compile_constraint(json_schema_constraint(schema), vocabulary)
            except ConstraintError as error:
                assert "Unsatisfiable" in str(error), schema
                continue
            for prefer in preferences:
                text = draw(index, vocabulary, rng, prefer=prefer, max_tokens=60)
                assert text is not None, schema
                jsonschema.validate(json.loads(text), schema)
                exact = decimal.Decimal(text.decode())
                assert decimal.Decimal(repr(low)) <= exact <= decimal.Decimal(repr(high))
                num_texts += 1
    assert num_texts > 1_000
