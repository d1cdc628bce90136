"""Pydantic AI: its LiteLLM provider, with the proxy's address.

Run:    litellm-mlx serve smollm2-135m      (in another terminal; it prints a key)
        OPENAI_BASE_URL=http://127.0.0.1:4000/v1 OPENAI_API_KEY=<key> \
            python examples/clients/pydantic_ai_client.py
Prints: a Person by a tool call, another by a JSON schema, and a streamed sentence.
"""

import os
from typing import Literal

from pydantic import BaseModel, Field
from pydantic_ai import Agent, ModelSettings, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.litellm import LiteLLMProvider

TEXT = "Maria, 34, laughed all evening."


class Person(BaseModel):
    name: str = Field(max_length=30)
    age: int
    mood: Literal["happy", "sad"]


def main() -> None:
    """Run three agents, each without a second try."""
    provider = LiteLLMProvider(
        api_base=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"]
    )
    settings = ModelSettings(temperature=0, max_tokens=100)
    model = OpenAIChatModel("smollm2-135m", provider=provider, settings=settings)
    print("by a call:", repr(Agent(model, output_type=Person, retries=0).run_sync(TEXT).output))
    by_schema = Agent(model, output_type=NativeOutput(Person), retries=0)
    print("by a schema:", repr(by_schema.run_sync(TEXT).output))
    stream = Agent(model, retries=0).run_stream_sync("Name a colour.")
    print("streamed:", "".join(stream.stream_text(delta=True)))


if __name__ == "__main__":
    main()
