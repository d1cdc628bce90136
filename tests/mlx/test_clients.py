"""Programs that people already have, on random weights: what they parse is what they asked for."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import instructor
import litellm
import pytest
from pydantic import BaseModel, Field

USER = [{"role": "user", "content": "hello"}]


class Step(BaseModel, extra="forbid"):
    action: Literal["walk", "run"]
    minutes: int = Field(ge=1, le=90)


class Plan(BaseModel, extra="forbid"):
    goal: str = Field(max_length=20)
    steps: list[Step] = Field(min_length=1, max_length=3)
    done: bool


def test_async_instructor(tiny: str) -> None:
    client = instructor.from_litellm(litellm.acompletion, mode=instructor.Mode.TOOLS)

    async def run() -> list[Any]:
        calls = (
            client.chat.completions.create(
                model=tiny, messages=USER, response_model=Plan, max_retries=0, max_tokens=400
            )
            for _ in range(4)
        )
        return await asyncio.gather(*calls)

    assert all(isinstance(plan, Plan) for plan in asyncio.run(run()))


def test_a_pydantic_class_is_a_response_format(tiny: str) -> None:
    response = litellm.completion(
        model=tiny, messages=USER, response_format=Plan, max_tokens=400, seed=1
    )
    Plan.model_validate_json(response.choices[0].message.content)


def test_the_responses_api_parses_its_text_format(tiny: str) -> None:
    response = litellm.responses(
        model=tiny, input="hello", text_format=Plan, max_output_tokens=400, temperature=1.0
    )
    Plan.model_validate_json(response.output[-1].content[0].text)


def test_the_responses_api_asks_for_reasoning(tiny: str) -> None:
    with pytest.raises(litellm.BadRequestError, match="does not think"):
        litellm.responses(model=tiny, input="hi", reasoning={"effort": "low"}, max_output_tokens=20)


@pytest.mark.parametrize(
    "lost",
    [
        {"previous_response_id": "resp_1"},
        {"background": True},
        {"prompt": {"id": "pmpt_1"}},
        {"tools": [{"type": "image_generation"}]},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("is_stream", [False, True])
def test_the_responses_api_loses_nothing_in_silence(
    tiny: str, lost: dict[str, Any], is_async: bool, is_stream: bool
) -> None:
    """LiteLLM would answer as if it had not been sent."""
    asked: Any = {"model": tiny, "input": "hi", "max_output_tokens": 5, "stream": is_stream, **lost}
    with pytest.raises(litellm.BadRequestError, match=next(iter(lost))):
        if is_async:
            asyncio.run(litellm.aresponses(**asked))
        else:
            litellm.responses(**asked)


def test_a_prompt_can_be_counted_and_not_answered(tiny: str) -> None:
    asked: Any = {"model": tiny, "messages": USER, "max_tokens": 5}
    counted = litellm.completion(**asked, count_only=True)
    usage = litellm.completion(**asked).usage
    assert counted.usage.prompt_tokens == usage.prompt_tokens
    assert counted.usage.completion_tokens == 0 and not counted.choices[0].message.content
    chunks = list(litellm.completion(**asked, count_only=True, stream=True))
    assert not any(chunk.choices[0].delta.content for chunk in chunks)


def test_anthropics_messages_call_tools(tiny: str) -> None:
    tool = {"name": "plan", "description": "", "input_schema": Plan.model_json_schema()}

    async def run() -> Any:
        return await litellm.anthropic_messages(
            model=tiny,
            messages=USER,
            tools=[tool],
            tool_choice={"type": "tool", "name": "plan"},
            max_tokens=400,
        )

    response = asyncio.run(run())
    (block,) = [block for block in response["content"] if block["type"] == "tool_use"]
    Plan.model_validate(block["input"])
    assert response["stop_reason"] == "tool_use"


def test_a_closed_answer_can_be_reported_as_complete(tiny: str) -> None:
    """The OpenAI SDK's `.parse` raises on "length"; a closed answer is whole all the same."""
    schema = {"type": "object", "additionalProperties": {"type": "object"}, "minProperties": 3}
    shape = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    num_closed = 0
    for seed in range(8):
        for asked in ("length", "stop"):
            choice = litellm.completion(
                model=tiny,
                messages=USER,
                response_format=shape,
                max_tokens=60,
                seed=seed,
                budget_finish_reason=asked,
            ).choices[0]
            assert isinstance(json.loads(choice.message.content), dict)
            is_closed = choice.message.provider_specific_fields["closed_by_budget"]
            assert choice.finish_reason == (asked if is_closed else "stop")
            num_closed += is_closed
    assert num_closed
