"""The OpenAI SDK: change the base URL, keep the program.

Run:    litellm-mlx serve smollm2-135m      (in another terminal; it prints a key)
        OPENAI_BASE_URL=http://127.0.0.1:4000/v1 OPENAI_API_KEY=<key> \
            python examples/clients/openai_sdk.py
Prints: a parsed object, a streamed sentence, and the arguments of a tool call.
"""

from typing import Literal

import openai
from pydantic import BaseModel, Field

MODEL = "smollm2-135m"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Oslo", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class Person(BaseModel):
    name: str = Field(max_length=30)
    age: int
    mood: Literal["happy", "sad"]


def main() -> None:
    """Ask three times."""
    client = openai.OpenAI()
    text = [{"role": "user", "content": "Maria, 34, laughed all evening."}]
    answer = client.chat.completions.parse(
        model=MODEL, messages=text, response_format=Person, temperature=0, max_tokens=200
    )
    print(repr(answer.choices[0].message.parsed))
    stream = client.chat.completions.create(
        model=MODEL, messages=text, stream=True, temperature=0, max_tokens=24
    )
    print("streamed:", "".join(chunk.choices[0].delta.content or "" for chunk in stream))
    question = [{"role": "user", "content": "What is the weather in Paris?"}]
    called = client.chat.completions.create(
        model=MODEL, messages=question, tools=[WEATHER], tool_choice="required", temperature=0
    )
    print("called:", called.choices[0].message.tool_calls[0].function.arguments)


if __name__ == "__main__":
    main()
