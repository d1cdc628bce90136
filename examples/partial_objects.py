"""A Pydantic object that fills while it is streamed.

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/partial_objects.py
Prints: the object as it grows, then the whole.
"""

import litellm
from pydantic import BaseModel, Field

import litellm_mlx


class Recipe(BaseModel):
    """What the model fills in."""

    name: str = Field(max_length=40)
    minutes: int = Field(ge=1, le=240)
    steps: list[str] = Field(min_length=2, max_length=3)


def main() -> None:
    """Stream one recipe."""
    stream = litellm.completion(
        model="mlx/smollm2-135m",
        messages=[{"role": "user", "content": "A recipe for tomato soup."}],
        response_format=Recipe,
        max_tokens=150,
        temperature=0,
        stream=True,
    )
    recipe = None
    for recipe in litellm_mlx.partial_objects(stream, Recipe):
        print(recipe.name, recipe.minutes, len(recipe.steps or ()), sep=" | ")
    assert recipe is not None
    print(recipe.model_dump_json(indent=2))


if __name__ == "__main__":
    main()
