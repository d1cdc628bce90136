"""Instructor, through LiteLLM's SDK, in process: a Pydantic object at the first try.

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/clients/instructor_client.py
Prints: a Person.
"""

from typing import Literal

import instructor
import litellm
from pydantic import BaseModel, Field

import litellm_mlx  # noqa: F401  # registers mlx/


class Person(BaseModel):
    name: str = Field(max_length=30)
    age: int
    mood: Literal["happy", "sad"]


def main() -> Person:
    """Extract one person and print them."""
    client = instructor.from_litellm(litellm.completion)
    person = client.chat.completions.create(
        model="mlx/smollm2-135m",
        messages=[{"role": "user", "content": "Maria, 34, laughed all evening."}],
        response_model=Person,
        max_retries=0,
        temperature=0,
        max_tokens=200,
    )
    print(repr(person))
    return person


if __name__ == "__main__":
    main()
