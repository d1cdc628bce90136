"""DSPy signatures of every kind of output, each with values that are right and wrong for it."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from typing import Annotated, Any, Literal, NamedTuple

import dspy
import pydantic
from pydantic import BaseModel, Field
from typing_extensions import TypedDict


class Colour(enum.Enum):
    RED = "red"
    DARK_BLUE = "dark blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Note(BaseModel):
    """Has a docstring: "quoted", with [[ ## headers ## ]] and

    a second paragraph.
    """

    title: str
    counts: dict[str, int]
    mood: Literal["good", "bad"]
    extra: dict = {}  # type: ignore[type-arg]  # as users write it
    pages: int | None = Field(default=None, ge=1)


class Box(BaseModel):
    note: Note
    notes: list[Note]
    by_name: dict[str, Note]
    maybe: dict[str, float] | None = None


class Node(BaseModel):
    value: int
    kids: list[Node]


class Aliased(BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)
    inner_name: int = Field(alias="outerName")


class Open(BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    known: int


class Shut(BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    good: bool


class Spot(NamedTuple):
    x: int
    y: float


class Typed(TypedDict):
    a: int
    b: list[str]


class Fact(dspy.Type):
    """A type of a user's own."""

    text: str
    score: float

    @classmethod
    def description(cls) -> str:
        return "A fact with a score.\nConstraints: greater than: 7"

    def format(self) -> str:
        return f"{self.text} ({self.score})"


NOTE = {"title": "a", "counts": {"x": 1}, "mood": "good", "extra": {"y": [2]}, "pages": 3}
BOX = {"note": NOTE, "notes": [], "by_name": {"n": NOTE}, "maybe": {"z": 0.5}}


class Case(NamedTuple):
    """One output type.

    Attributes:
        right: JSON values of the field that DSPy takes.
        wrong: JSON values that it does not take.
        is_text: bare, the field is free text; nothing is wrong.
        words: the bare texts of a chat field and their values, where they are not JSON.
    """

    type: Any
    right: list[Any]
    wrong: list[Any]
    is_text: bool = False
    words: dict[str, Any] | None = None


def words(*values: Any) -> dict[str, Any]:
    return {str(value): value for value in values}


NOT_OBJECTS = [1, "x", None, [1]]

CASES: dict[str, Case] = {
    "str": Case(str, ["", "a\n\nb", 'q"'], [1, None], True),
    "reasoning": Case(dspy.Reasoning, ["because"], [1], True),
    "code": Case(dspy.Code["java"], ["int x;"], [1], True),
    "optional str": Case(str | None, ["a", None], [1], True),
    "str or int or None": Case(str | int | None, ["a", 1], [[1]], True),
    "int": Case(int, [0, -7, 10**12], [1.5, "x", True]),
    "float": Case(float, [0, -1.5, 1e20], ["x", None]),
    "bool": Case(bool, [True, False], [1, "yes"], words=words(True, False)),
    "literal": Case(Literal["a", "b c"], ["a", "b c"], ["A", 1], words=words("a", "b c")),
    "literal with separators": Case(
        Literal["a; b", "a", "'q'", 'say "hi"', "bo'th\"", "c): d", "e]", "f, 'g'", ""],
        ["a; b", "a", "'q'", 'say "hi"', "bo'th\"", "c): d", "e]", "f, 'g'", ""],
        ["b", "g"],
        words=words("a; b", "a", "'q'", 'say "hi"', "bo'th\"", "c): d", "e]", "f, 'g'", ""),
    ),
    "literal numbers": Case(Literal[1, -2, 30], [1, -2, 30], [3, "1"], words=words(1, -2, 30)),
    "mixed literal": Case(
        Literal[1, "x", True, None], ["x", 1, True, None], ["y"], words=words(1, "x", True, None)
    ),
    "literal not ASCII": Case(Literal["é", "日本"], ["é"], ["e"], words=words("é", "日本")),
    "enum": Case(Colour, ["red", "dark blue"], ["RED", 1], words=words("red", "dark blue")),
    "optional int": Case(int | None, [1, None], ["x", 1.5]),
    "optional literal": Case(Literal["a", "b"] | None, ["a", None], ["c"]),
    "optional enum": Case(Colour | None, ["red", None], ["RED"]),
    "union": Case(int | str, [1, "x"], [None, [1]]),
    "union of models": Case(
        Cat | Dog,
        [{"kind": "cat", "lives": 9}, {"kind": "dog", "good": True}],
        [{"kind": "cat", "good": True}],
    ),
    "discriminated union": Case(
        Annotated[Cat | Dog, Field(discriminator="kind")],
        [{"kind": "cat", "lives": 9}],
        [{"kind": "cow"}],
    ),
    "list of int": Case(list[int], [[], [1, 2]], [["x"], 1]),
    "list of enum": Case(list[Colour], [["red"]], [["RED"]]),
    "bare list": Case(list, [[], [1, "x", {"a": 1}]], [1]),
    "list of dict": Case(list[dict], [[], [{"a": [1]}]], [[1]]),  # type: ignore[type-arg]
    "list of dict of int": Case(list[dict[str, int]], [[{"a": 1}]], [[{"a": "x"}]]),
    "bare dict": Case(dict, [{}, {"a": {"b": 1}}], NOT_OBJECTS),
    "dict of int": Case(dict[str, int], [{}, {"a": 1}], [*NOT_OBJECTS, {"a": "x"}]),
    "dict of any": Case(dict[str, Any], [{"a": None}], NOT_OBJECTS),
    "dict of models": Case(dict[str, Note], [{"a": NOTE}], [{"a": {}}]),
    "optional dict": Case(dict[str, int] | None, [None, {"a": 1}], [{"a": "x"}]),
    "tuple": Case(tuple[int, bool], [[1, True]], [[1], [1, 2, 3]]),
    "named tuple": Case(Spot, [[1, 0.5]], [["x", 1]]),
    "set": Case(set[int], [[], [1, 2]], [["x"]]),
    "model": Case(Note, [NOTE], [{}, {**NOTE, "mood": "meh"}]),
    "nested model": Case(Box, [BOX], [{**BOX, "note": {}}, {**BOX, "by_name": {"n": {}}}]),
    "recursive model": Case(Node, [{"value": 1, "kids": [{"value": 2, "kids": []}]}], [{}]),
    "list of recursive": Case(list[Node], [[{"value": 1, "kids": []}]], [[{"value": 1}]]),
    "aliased model": Case(Aliased, [{"outerName": 1}], [{"outerName": "x"}]),
    "empty model": Case(Shut, [{}], [{"a": 1}]),
    "typed dict": Case(Typed, [{"a": 1, "b": ["x"]}], [{"a": "x", "b": []}]),
    "datetime": Case(datetime.datetime, ["2024-05-04T12:00:00Z"], [1.5]),
    "date": Case(datetime.date, ["2024-05-04"], [1.5]),
    "uuid": Case(uuid.UUID, ["12345678-1234-4234-8234-123456789abc"], [1]),
    "decimal": Case(decimal.Decimal, [1.5, 2], ["x", None]),
    "bytes": Case(bytes, ["ab"], [1]),
    "anything": Case(Any, [1, "x", None, {"a": [1]}], []),
    "tool calls": Case(
        dspy.ToolCalls, [{"tool_calls": [{"name": "f", "args": {"x": 1}}]}], [{"tool_calls": 1}]
    ),
    "own type": Case(Fact, [{"text": "a", "score": 0.5}], [{"text": "a"}]),
}


FIELD = "völlig_x"


def signature(name: str) -> type[dspy.Signature]:
    """The case's type between two texts, under names that need care."""
    made: type[dspy.Signature] = dspy.Signature(
        {
            "question": (str, dspy.InputField(desc="first\n\n2. second")),
            "before": (str, dspy.OutputField(desc="1. `numbered` but no field")),
            FIELD: (CASES[name].type, dspy.OutputField()),
            "completed": (str, dspy.OutputField()),
        },
        "Answer.\n\nKeep [[ ## question ## ]] in mind.",
    )
    return made
