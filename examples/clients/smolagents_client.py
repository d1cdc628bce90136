"""smolagents, through its LiteLLM model, in process: an agent with a tool, and an object.

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/clients/smolagents_client.py
Prints: the agent's tool calls and its answer, then a Person.

A model of this size rarely knows when it is done; `max_steps` ends the agent with an answer.
"""

from typing import Literal

from pydantic import BaseModel, Field
from smolagents import LiteLLMModel, LogLevel, ToolCallingAgent, tool

import litellm_mlx  # noqa: F401  # registers mlx/


class Person(BaseModel):
    name: str = Field(max_length=30)
    age: int
    mood: Literal["happy", "sad"]


SCHEMA = {"name": "person", "schema": Person.model_json_schema(), "strict": True}


@tool
def get_weather(city: str) -> str:
    """Look up the weather of a city.

    Args:
        city: The city's name.
    """
    return f"rain in {city}"


def main() -> None:
    """Run the agent, then ask the model itself."""
    model = LiteLLMModel(
        "mlx/smollm2-135m", temperature=0, max_tokens=64, parallel_tool_calls=False
    )
    agent = ToolCallingAgent([get_weather], model, max_steps=2, verbosity_level=LogLevel.OFF)
    answer = agent.run("What is the weather in Paris?")
    for step in agent.memory.get_full_steps():
        for call in step.get("tool_calls") or ():
            print("called:", call["function"]["name"], call["function"]["arguments"])
    print("answered:", answer)
    text = [{"role": "user", "content": "Maria, 34, laughed all evening."}]
    message = model.generate(text, response_format={"type": "json_schema", "json_schema": SCHEMA})
    print(repr(Person.model_validate_json(message.content)))


if __name__ == "__main__":
    main()
