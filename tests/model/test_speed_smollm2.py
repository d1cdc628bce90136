"""The real model says the same with its prefix cache and fast-forward as without them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from litellm_mlx.config import EngineConfig
from litellm_mlx.engine.engine import Engine
from litellm_mlx.grammar.constraint import json_schema_constraint
from litellm_mlx.models.loader import LoadedModel, load_model
from litellm_mlx.models.names import parse_model_name
from litellm_mlx.types import Delta, Done, GenerationRequest, SamplingParams

pytestmark = pytest.mark.model

CAPITALS = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Peru": "Lima", "Cuba": "Havana"}
DEMO = (
    "Read the note on {0} and answer with the name of its capital alone, without a sentence "
    "around it. The note: travellers who come to {0} for the first time mostly begin in {1}, "
    "which is the seat of its government."
)

ANSWER = json_schema_constraint(
    {
        "type": "object",
        "properties": {
            "name of the capital": {"type": "string", "maxLength": 20},
            "continent": {"enum": ["Africa", "America", "Asia", "Europe"]},
        },
        "required": ["name of the capital", "continent"],
        "additionalProperties": False,
    }
)


def start(**options: Any) -> Engine[LoadedModel]:
    config = EngineConfig(**options)
    spec = parse_model_name("smollm2-135m")
    return Engine(lambda: load_model(spec, config), config, name="smollm2")


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[Engine[LoadedModel], Engine[LoadedModel]]]:
    cold, warm = start(prefix_cache_bytes=0, fast_forward=False), start()
    yield cold, warm
    cold.shutdown()
    warm.shutdown()


def prompts(engine: Engine[LoadedModel]) -> list[tuple[int, ...]]:
    """Calls of one program: the same demos first, each with a question of its own."""
    demos: list[dict[str, str]] = [{"role": "system", "content": "Answer as in the examples."}]
    for country, capital in CAPITALS.items():
        text = " ".join(DEMO.format(country, capital) for _ in range(2))
        demos.append({"role": "user", "content": text})
        demos.append({"role": "assistant", "content": capital})
    tokenizer = engine.model().tokenizer
    questions = [f"What is the capital of {country}?" for country in ("Spain", "Chile")]
    return [
        tuple(
            tokenizer.apply_chat_template(
                [*demos, {"role": "user", "content": question}], add_generation_prompt=True
            )
        )
        for question in questions
    ]


def run(engine: Engine[LoadedModel], prompt: tuple[int, ...], **options: Any) -> tuple[str, Done]:
    text = ""
    greedy = SamplingParams(temperature=0)
    asked = GenerationRequest(prompt, 80, greedy, deadline_s=time.monotonic() + 300, **options)
    for event in engine.submit(asked):
        if isinstance(event, Delta):
            text += event.text
        elif isinstance(event, Done):
            return text, event
    raise AssertionError("a stream ends with Done")


def test_warm_calls_say_the_same(
    engines: tuple[Engine[LoadedModel], Engine[LoadedModel]],
) -> None:
    cold, warm = engines
    first, *others = prompts(warm)
    assert run(warm, first)[0] == run(cold, first)[0]
    for prompt in others:
        text, done = run(warm, prompt)
        assert text == run(cold, prompt)[0]
        assert done.usage.cached_tokens >= 0.9 * len(prompt)


def test_forced_tokens_leave_the_text_as_the_model_writes_it(
    engines: tuple[Engine[LoadedModel], Engine[LoadedModel]],
) -> None:
    """The first of the two engines takes no forced tokens, and the model none in their place."""
    step_by_step, fast = engines
    for question in prompts(fast)[1:]:
        text, done = run(fast, question, constraint=ANSWER)
        assert text == run(step_by_step, question, constraint=ANSWER)[0]
        assert done.num_forced_tokens > done.usage.completion_tokens / 3
