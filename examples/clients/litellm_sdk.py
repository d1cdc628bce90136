"""LiteLLM's SDK: whole answers, streams, many at once; the model's name is all that changes.

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/clients/litellm_sdk.py
Prints: a JSON object that follows its schema, a streamed answer, and three answers of a batch.
"""

import litellm

import litellm_mlx  # noqa: F401  # registers mlx/

MODEL = "mlx/smollm2-135m"
CITY = {
    "type": "json_schema",
    "json_schema": {
        "name": "city",
        "schema": {
            "type": "object",
            "properties": {"capital": {"type": "string", "maxLength": 20}},
            "required": ["capital"],
            "additionalProperties": False,
        },
    },
}


def ask(country: str) -> list[dict[str, str]]:
    """A chat about one country."""
    return [{"role": "user", "content": f"What is the capital of {country}?"}]


def main() -> None:
    """Ask in three ways."""
    options = {"temperature": 0, "max_tokens": 64}
    whole = litellm.completion(MODEL, ask("France"), response_format=CITY, **options)
    print("whole:", whole.choices[0].message.content)
    stream = litellm.completion(MODEL, ask("Italy"), stream=True, **options)
    print("stream:", "".join(chunk.choices[0].delta.content or "" for chunk in stream))
    chats = [ask(country) for country in ("Norway", "Spain", "Japan")]
    for answer in litellm.batch_completion(MODEL, chats, response_format=CITY, **options):
        print("batch:", answer.choices[0].message.content)


if __name__ == "__main__":
    main()
