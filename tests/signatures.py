"""Fourteen DSPy signatures whose outputs cover what Pydantic models are made of."""

from __future__ import annotations

from datetime import date, datetime
from enum import Enum
from typing import Any, Literal

import dspy
from pydantic import BaseModel, Field


class City(BaseModel):
    name: str = Field(max_length=30)
    country: str = Field(max_length=30)


class Person(BaseModel):
    name: str = Field(max_length=30)
    age: int = Field(ge=0, le=120)
    home: City


class Node(BaseModel):
    id: int
    type: Literal["person", "place", "thing"]


class Graph(BaseModel):
    nodes: list[Node] = Field(max_length=4)
    edges: list[tuple[int, int]] = Field(max_length=4)


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(ge=1, le=9)


class Dog(BaseModel):
    kind: Literal["dog"]
    good: bool


class Colour(Enum):
    RED = "red"
    GREEN = "green"
    BLUE = "blue"


class Event(BaseModel):
    title: str = Field(max_length=40)
    day: date
    starts: datetime


class Measure(BaseModel):
    share: float = Field(ge=0, le=1)
    score: float = Field(gt=-10, lt=10)


class Tree(BaseModel):
    label: Literal["leaf", "branch"]
    children: list[Tree] = Field(max_length=1)


SHORT = {"max_length": 60}

# name -> (signature, inputs)
CASES: dict[str, tuple[Any, dict[str, str]]] = {
    "string": ("question -> answer: Literal['yes', 'no', 'maybe']", {"question": "Is it day?"}),
    "number": ("question -> answer: int", {"question": "What is 2 + 2?"}),
    "several outputs": (
        "text -> tone: Literal['good', 'bad'], stars: int, urgent: bool",
        {"text": "I love it."},
    ),
    "nested models": (
        dspy.Signature({"text": (str, dspy.InputField()), "person": (Person, dspy.OutputField())}),
        {"text": "Ann, 30, lives in Rome."},
    ),
    "optional": ("text -> year: Optional[int]", {"text": "It was built in 1889."}),
    "union": ("text -> value: Union[int, bool]", {"text": "Seven."}),
    "union of models": (
        dspy.Signature({"text": (str, dspy.InputField()), "pet": (Cat | Dog, dspy.OutputField())}),
        {"text": "My dog is good."},
    ),
    "enum": (
        dspy.Signature({"text": (str, dspy.InputField()), "colour": (Colour, dspy.OutputField())}),
        {"text": "Grass."},
    ),
    "list of models": (
        dspy.Signature({"text": (str, dspy.InputField()), "graph": (Graph, dspy.OutputField())}),
        {"text": "Bob is in Oslo."},
    ),
    "dates": (
        dspy.Signature({"text": (str, dspy.InputField()), "event": (Event, dspy.OutputField())}),
        {"text": "Party on 4 May 2024 at noon."},
    ),
    "bounded floats": (
        dspy.Signature(
            {"text": (str, dspy.InputField()), "measure": (Measure, dspy.OutputField())}
        ),
        {"text": "Half of them."},
    ),
    "recursive": (
        dspy.Signature({"text": (str, dspy.InputField()), "tree": (Tree, dspy.OutputField())}),
        {"text": "A branch with a leaf."},
    ),
    "tuple": ("text -> pair: tuple[int, bool]", {"text": "3 and true"}),
    "literal numbers": ("text -> size: Literal[1, 2, 3]", {"text": "two"}),
}
