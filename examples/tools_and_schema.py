"""Tools and a schema in one request: the model calls a function or answers in the schema.

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/tools_and_schema.py
Prints: a call with arguments of the tool's types, then an answer in the schema.
"""

import json
from typing import Any

import litellm

import litellm_mlx  # noqa: F401  # registers mlx/

MODEL = "mlx/smollm2-135m"
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city now.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
        },
    },
}
REPORT = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "degrees": {"type": "integer", "minimum": -60, "maximum": 60},
    },
    "required": ["city", "degrees"],
    "additionalProperties": False,
}


def main() -> None:
    """Ask, play the tool, and ask again without it."""
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "How warm is it in Paris, in Celsius? Call the function."}
    ]
    schema = {"type": "json_schema", "json_schema": {"name": "report", "schema": REPORT}}
    options = {"model": MODEL, "response_format": schema, "max_tokens": 100, "temperature": 0}
    answer = litellm.completion(
        messages=messages, tools=[TOOL], parallel_tool_calls=False, **options
    ).choices[0]
    if answer.finish_reason == "tool_calls":
        (call,) = answer.message.tool_calls
        arguments = json.loads(call.function.arguments)
        print("called:", call.function.name, arguments)
        result = {"role": "tool", "tool_call_id": call.id, "content": "12 degrees, light rain"}
        messages += [answer.message.model_dump(), result]
        answer = litellm.completion(messages=messages, **options).choices[0]
    print("answered:", json.loads(answer.message.content))


if __name__ == "__main__":
    main()
