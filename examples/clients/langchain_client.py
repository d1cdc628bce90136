"""LangChain, through its LiteLLM integration, in process.

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/clients/langchain_client.py
Prints: an answer, a streamed answer, a Person, and a tool's name, arguments and result.
"""

from typing import Literal

from langchain_core.tools import tool
from langchain_litellm import ChatLiteLLM
from pydantic import BaseModel, Field

import litellm_mlx  # noqa: F401  # registers mlx/


class Person(BaseModel):
    """A person in the text."""

    name: str = Field(max_length=30)
    age: int
    mood: Literal["happy", "sad"]


@tool
def get_weather(city: Literal["Paris", "Oslo", "Rome"]) -> str:
    """Look up the weather of a city."""
    return f"rain in {city}"


def main() -> None:
    """Ask four times."""
    model = ChatLiteLLM(model="mlx/smollm2-135m", temperature=0, max_tokens=64)
    print("answered:", model.invoke("What is the capital of France?").content)
    print("streamed:", "".join(chunk.text for chunk in model.stream("Name a colour.")))
    extract = model.with_structured_output(Person)
    print(repr(extract.invoke("Maria, 34, laughed all evening.")))
    with_tool = model.bind_tools([get_weather], tool_choice="get_weather")
    (call,) = with_tool.invoke("What is the weather in Paris?").tool_calls
    print("called:", call["name"], call["args"], get_weather.invoke(call).content)


if __name__ == "__main__":
    main()
