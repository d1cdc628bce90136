"""The Anthropic SDK: change the base URL, keep the program.

Run:    litellm-mlx serve smollm2-135m      (in another terminal; it prints a key)
        ANTHROPIC_BASE_URL=http://127.0.0.1:4000 ANTHROPIC_API_KEY=<key> \
            python examples/clients/anthropic_sdk.py
Prints: a streamed sentence, and the input of a tool.
"""

import anthropic

MODEL = "smollm2-135m"
WEATHER = {
    "name": "get_weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Oslo", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


def main() -> None:
    """Ask twice."""
    client = anthropic.Anthropic()
    question = [{"role": "user", "content": "What is the weather in Paris?"}]
    with client.messages.stream(model=MODEL, max_tokens=24, messages=question) as stream:
        print("streamed:", "".join(stream.text_stream))
    message = client.messages.create(
        model=MODEL,
        max_tokens=200,
        messages=question,
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "get_weather"},
    )
    print("called:", next(block.input for block in message.content if block.type == "tool_use"))


if __name__ == "__main__":
    main()
