"""Thinking models: a block of bounded length, then the answer, constrained or free."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import dspy
import jsonschema
import litellm
import pytest
from litellm.exceptions import UnsupportedParamsError

import litellm_mlx
from tests.tiny_model import CHAT_TEMPLATE, make_tiny_model

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}
USER = [{"role": "user", "content": "hello"}]
MARKERS = ("<think>", "</think>")
# As Qwen3's template: thinking is on unless it is switched off, which an empty thought shows.
SWITCHED = CHAT_TEMPLATE + (
    "{% if add_generation_prompt and enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
)
# As DeepSeek-R1's: the prompt always ends inside a thought.
ALWAYS = CHAT_TEMPLATE + "{% if add_generation_prompt %}{{ '<think>\\n' }}{% endif %}"


def model(path: Path, template: str) -> str:
    return f"mlx/{make_tiny_model(path, chat_template=template, added_tokens=MARKERS)}"


@pytest.fixture(scope="module")
def switched(tmp_path_factory: pytest.TempPathFactory) -> str:
    return model(tmp_path_factory.mktemp("switched"), SWITCHED)


@pytest.fixture(scope="module")
def always(tmp_path_factory: pytest.TempPathFactory) -> str:
    return model(tmp_path_factory.mktemp("always"), ALWAYS)


def ask(name: str, **options: Any) -> Any:
    fixed = {"max_tokens": 60, "seed": 5}  # a thought that is drawn may be empty
    return litellm.completion(model=name, messages=USER, **{**fixed, **options})


def assert_answer(response: Any) -> None:
    message = response.choices[0].message
    jsonschema.validate(json.loads(message.content), SCHEMA)
    assert not any(marker in message.content for marker in MARKERS)


def assert_thought(response: Any, *, at_most: int) -> None:
    """Some thought within its budget, which the marker that ends it comes on top of."""
    details = response.usage.completion_tokens_details
    assert 1 <= details.reasoning_tokens <= at_most + 1
    assert response.choices[0].message.reasoning_content


@pytest.mark.parametrize("seed", range(5))
def test_the_schema_starts_after_a_thought_of_bounded_length(switched: str, seed: int) -> None:
    thinking = {"type": "enabled", "budget_tokens": 9}
    response = ask(switched, response_format=FORMAT, thinking=thinking, seed=seed)
    assert_answer(response)
    assert_thought(response, at_most=9)


def test_a_switch_in_the_template_is_off_for_a_schema_unless_asked(switched: str) -> None:
    response = ask(switched, response_format=FORMAT)
    assert_answer(response)
    assert response.usage.completion_tokens_details.reasoning_tokens == 0
    for asked in (
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"reasoning_effort": "low"},
        {"thinking": {"type": "enabled", "budget_tokens": 1000}},
    ):
        response = ask(switched, response_format=FORMAT, **asked)
        assert_answer(response)
        assert_thought(response, at_most=30)  # half of max_tokens at most


def test_a_model_that_always_thinks_does_so_before_a_schema(always: str) -> None:
    response = ask(always, response_format=FORMAT)
    assert_answer(response)
    assert_thought(response, at_most=30)


@pytest.mark.parametrize(
    "off",
    [
        {"reasoning_effort": "none"},
        {"thinking": {"type": "disabled"}},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ],
)
def test_thinking_can_be_switched_off_everywhere(
    switched: str, always: str, off: dict[str, Any]
) -> None:
    for name in (switched, always):
        response = ask(name, response_format=FORMAT, **off)
        assert_answer(response)
        assert response.usage.completion_tokens_details.reasoning_tokens == 0


def test_free_text_has_a_budget_too(switched: str) -> None:
    response = ask(switched, thinking={"type": "enabled", "budget_tokens": 4}, max_tokens=20)
    assert_thought(response, at_most=4)
    assert response.choices[0].message.content


def test_a_stream_gives_the_thought_first_and_the_same_answer(switched: str) -> None:
    options = {"response_format": FORMAT, "reasoning_effort": "low", "seed": 3}
    whole = ask(switched, **options).choices[0].message
    reasoning = content = ""
    for chunk in ask(switched, stream=True, **options):
        delta = chunk.choices[0].delta
        assert not (content and getattr(delta, "reasoning_content", None))
        reasoning += getattr(delta, "reasoning_content", None) or ""
        content += delta.content or ""
    assert (reasoning, content) == (whole.reasoning_content, whole.content)


def test_two_wishes_that_differ_are_refused(switched: str) -> None:
    with pytest.raises(UnsupportedParamsError, match="send one of them"):
        ask(switched, reasoning_effort="none", thinking={"type": "enabled"})


def test_a_model_that_does_not_think_says_so(tiny: str) -> None:
    with pytest.raises(UnsupportedParamsError, match="does not think"):
        ask(tiny, reasoning_effort="low")
    assert (
        ask(tiny, reasoning_effort="low", drop_params=True).choices[0].message.content is not None
    )
    assert ask(tiny, reasoning_effort="none").choices[0].message.content is not None


@pytest.mark.parametrize(
    ("thinking", "effort"),
    [
        ({"type": "adaptive"}, None),
        ({"type": "adaptive", "display": "omitted"}, None),
        ({"type": "adaptive"}, "max"),
        ({"type": "disabled"}, None),
        (None, "low"),
    ],
)
def test_a_messages_request_that_leaves_thinking_open_is_no_demand(
    tiny: str, thinking: dict[str, Any] | None, effort: str | None
) -> None:
    """Claude Code sends such to every model; LiteLLM makes an effort of it for other providers."""
    assert ask_anthropic(
        tiny, thinking=thinking, output_config={"effort": effort} if effort else {}
    )


def test_a_messages_request_has_its_exact_budget(switched: str, tiny: str) -> None:
    """LiteLLM's nearest effort would be of 128 tokens, and the thought would never end in 30."""
    thinking = {"type": "enabled", "budget_tokens": 4}
    for _ in range(4):
        *thought, text = ask_anthropic(switched, thinking=thinking)
        assert text["type"] == "text"
        assert all(block["type"] == "thinking" for block in thought)  # none where it is empty
    with pytest.raises(litellm.BadRequestError, match="thinking asks for thinking, and this model"):
        ask_anthropic(tiny, thinking=thinking)


def ask_anthropic(name: str, **options: Any) -> Any:
    """The blocks of a message by Anthropic's API."""
    call = litellm.anthropic_messages(
        model=name, messages=USER, max_tokens=30, temperature=0.5, **options
    )
    return asyncio.run(call)["content"]


def test_reasoning_is_advertised_once_it_is_known(switched: str, tiny: str) -> None:
    litellm_mlx.load(switched.removeprefix("mlx/"))
    assert litellm.supports_reasoning(switched)
    assert not litellm.supports_reasoning(tiny)
    assert litellm.supports_reasoning("mlx/qwen3-8b")
    assert not litellm.supports_reasoning("mlx/smollm2-135m")


class Answer(dspy.Signature):
    """Answer."""

    question: str = dspy.InputField()
    reasoning: dspy.Reasoning = dspy.OutputField()
    is_so: bool = dspy.OutputField()


def predicts(name: str, adapter: Any) -> Any:
    litellm_mlx.load(name.removeprefix("mlx/"))
    lm = dspy.LM(name, cache=False, max_tokens=120, seed=1)
    with dspy.context(lm=lm, adapter=adapter):
        prediction = dspy.Predict(Answer)(question="Is it?")
    assert len(lm.history) == 1  # no second call by a fallback
    return prediction, lm.history[0]


@pytest.mark.parametrize("adapter", ["JSONAdapter", "ChatAdapter"])
def test_dspys_reasoning_is_the_models_own_thought_where_it_thinks(
    switched: str, adapter: str
) -> None:
    prediction, call = predicts(switched, getattr(dspy, adapter)())
    message = call["response"].choices[0].message
    assert prediction.reasoning.content == message.reasoning_content
    assert "reasoning" not in message.content  # the field is out of prompt and schema
    assert isinstance(prediction.is_so, bool)


@pytest.mark.parametrize("adapter", ["JSONAdapter", "ChatAdapter"])
def test_dspys_reasoning_is_a_field_where_the_model_does_not_think(tiny: str, adapter: str) -> None:
    prediction, call = predicts(tiny, getattr(dspy, adapter)())
    assert "reasoning" in call["response"].choices[0].message.content
    assert isinstance(prediction.reasoning.content, str)
    assert isinstance(prediction.is_so, bool)


TOOL = {"type": "function", "function": {"name": "decide", "parameters": SCHEMA}}


@pytest.mark.parametrize("options", [{}, {"stream": True}])
def test_a_call_comes_after_the_thought(switched: str, options: dict[str, Any]) -> None:
    """In a template with a switch tools alone do not switch thinking off."""
    asked = {
        "tools": [TOOL],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_tokens": 150,
        "seed": 2,
    }
    response = ask(switched, thinking={"type": "enabled", "budget_tokens": 6}, **asked, **options)
    if options:
        response = litellm.stream_chunk_builder(list(response))
    message = response.choices[0].message
    (call,) = message.tool_calls
    jsonschema.validate(json.loads(call.function.arguments), SCHEMA)
    assert message.reasoning_content
    assert not message.content
    assert response.choices[0].finish_reason == "tool_calls"
