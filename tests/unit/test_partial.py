"""Partial objects: what a stream of JSON has given so far, as the caller's own model."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import date
from typing import Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from litellm_mlx import apartial_objects, partial_objects


class Person(BaseModel):
    name: str
    born: date
    friends: list[Person] = []
    mood: Literal["good", "bad"] | None = None
    score: int = Field(ge=0, alias="points")


WHOLE = Person.model_validate(
    {
        "name": "Ada",
        "born": "1815-12-10",
        "points": 3,
        "mood": "good",
        "friends": [{"name": "Mary", "born": "1780-12-26", "points": 1}],
    }
)
TEXT = WHOLE.model_dump_json(by_alias=True)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_the_object_grows_and_the_last_one_is_the_whole(size: int) -> None:
    pieces = [TEXT[i : i + size] for i in range(0, len(TEXT), size)]
    objects = list(partial_objects(pieces, Person))
    assert objects[-1] == WHOLE
    assert all(isinstance(item, Person) for item in objects)
    names = [item.name or "" for item in objects]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(names))


def test_fields_that_have_not_come_are_none_and_finished_parts_have_their_types() -> None:
    text = '{"name": "Ada", "born": "1815-12-10", "friends": [{"name": "Mary", "born": "17'
    *_, last = _collected(text)
    assert last.__dict__ == {
        "name": "Ada",
        "born": date(1815, 12, 10),
        "mood": None,
        "score": None,
        "friends": last.friends,
    }
    assert isinstance(last.friends[0], Person)
    assert last.friends[0].name == "Mary"
    assert str(last.friends[0].born) == "17"


def _collected(text: str) -> list[Person]:
    found: list[Person] = []
    stream = partial_objects(text, Person)
    while True:
        try:
            found.append(next(stream))
        except ValidationError:
            return found


def test_a_cut_text_ends_in_an_error() -> None:
    with pytest.raises(ValidationError):
        list(partial_objects([TEXT[:-1]], Person))


def test_an_async_stream_gives_the_same() -> None:
    async def pieces() -> AsyncIterator[str]:
        for char in TEXT:
            yield char

    async def collect() -> list[Person]:
        return [item async for item in apartial_objects(pieces(), Person)]

    assert asyncio.run(collect()) == list(partial_objects(TEXT, Person))
