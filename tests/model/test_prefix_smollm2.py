"""The prefix cache on the real model: a second call of a program starts at once, text unchanged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import pytest

from litellm_mlx.config import EngineConfig
from litellm_mlx.engine.engine import Engine
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


def start(**options: Any) -> Engine[LoadedModel]:
    config = EngineConfig(**options)
    spec = parse_model_name("smollm2-135m")
    return Engine(lambda: load_model(spec, config), config, name="smollm2")


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[Engine[LoadedModel], Engine[LoadedModel]]]:
    cold, warm = start(prefix_cache_bytes=0), start()
    yield cold, warm
    cold.shutdown()
    warm.shutdown()


def prompts(engine: Engine[LoadedModel], program: int) -> list[tuple[int, ...]]:
    """Calls of one program: the same demos first, each with a question of its own."""
    demos: list[dict[str, str]] = [{"role": "system", "content": f"This is program {program}."}]
    for country, capital in CAPITALS.items():
        text = " ".join(DEMO.format(country, capital) for _ in range(3))
        demos.append({"role": "user", "content": text})
        demos.append({"role": "assistant", "content": capital})
    tokenizer = engine.model().tokenizer
    questions = [f"What is the capital of {country}?" for country in ("Spain", "Chile", "Egypt")]
    return [
        tuple(
            tokenizer.apply_chat_template(
                [*demos, {"role": "user", "content": question}], add_generation_prompt=True
            )
        )
        for question in questions
    ]


def run(engine: Engine[LoadedModel], prompt: tuple[int, ...]) -> tuple[str, Done]:
    text = ""
    asked = GenerationRequest(
        prompt, 24, sampling=SamplingParams(temperature=0), deadline_s=time.monotonic() + 300
    )
    for event in engine.submit(asked):
        if isinstance(event, Delta):
            text += event.text
        elif isinstance(event, Done):
            return text, event
    raise AssertionError("a stream ends with Done")


def test_warm_calls_say_the_same_and_start_at_once(
    engines: tuple[Engine[LoadedModel], Engine[LoadedModel]],
) -> None:
    cold, warm = engines
    ratios = []
    for program in range(3):
        first, *others = prompts(warm, program)
        text, done = run(warm, first)
        assert text == run(cold, first)[0]
        cold_s = done.timings.time_to_first_token_s
        for prompt in others:
            text, done = run(warm, prompt)
            assert text == run(cold, prompt)[0]
            assert done.usage.cached_tokens >= 0.9 * len(prompt)
            ratios.append(done.timings.time_to_first_token_s / cold_s)
    assert median(ratios) <= 0.12
