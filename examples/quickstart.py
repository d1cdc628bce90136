"""Quickstart: stock DSPy, a local model, a validated object.

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/quickstart.py
Prints: a Person with the types that the signature asks for.
"""

from typing import Literal

import dspy
from pydantic import BaseModel

import litellm_mlx  # noqa: F401  # registers mlx/


class Person(BaseModel):
    name: str
    age: int
    mood: Literal["happy", "sad", "neutral"]


class ExtractPerson(dspy.Signature):
    """Extract the person from the text."""

    text: str = dspy.InputField()
    person: Person = dspy.OutputField()


def main() -> Person:
    """Extract one person and print them."""
    dspy.configure(lm=dspy.LM("mlx/smollm2-135m", temperature=0), adapter=dspy.JSONAdapter())
    person = dspy.Predict(ExtractPerson)(text="Maria, 34, laughed all evening.").person
    print(repr(person))
    return person


if __name__ == "__main__":
    main()
