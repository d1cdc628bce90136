"""LlamaIndex, through its LiteLLM class, in process.

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/clients/llama_index_client.py
Prints: a completion, an answer, a streamed answer, a Person, and a tool's name and arguments.

In its default mode `structured_predict` sends a tool that may be called, whatever it means to
(llama-index-llms-litellm 0.8.0), and a small model writes text instead. The mode LLM asks for
text, which `response_format` makes JSON of the schema.
"""

from typing import Literal

from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.core.types import PydanticProgramMode
from llama_index.llms.litellm import LiteLLM
from pydantic import BaseModel, Field

import litellm_mlx  # noqa: F401  # registers mlx/


class Person(BaseModel):
    name: str = Field(max_length=30)
    age: int
    mood: Literal["happy", "sad"]


def get_weather(city: Literal["Paris", "Oslo", "Rome"]) -> str:
    """Look up the weather of a city."""
    return f"rain in {city}"


def main() -> None:
    """Ask in five ways."""
    mode = PydanticProgramMode.LLM
    llm = LiteLLM("mlx/smollm2-135m", temperature=0, max_tokens=64, pydantic_program_mode=mode)
    print("completed:", llm.complete("The capital of France is").text)
    question = ChatMessage(role="user", content="What is the capital of Italy?")
    print("answered:", llm.chat([question]).message.content)
    print("streamed:", "".join(part.delta for part in llm.stream_complete("Name a colour.")))
    prompt, options = PromptTemplate("{text}"), {"response_format": Person}
    text = "Maria, 34, laughed all evening."
    print(repr(llm.structured_predict(Person, prompt, llm_kwargs=options, text=text)))
    tool = FunctionTool.from_defaults(get_weather)
    called = llm.chat_with_tools([tool], "What is the weather in Paris?", tool_required=True)
    (call,) = llm.get_tool_calls_from_response(called)
    print("called:", call.tool_name, call.tool_kwargs)


if __name__ == "__main__":
    main()
