"""Who is prefilled when, how fast, and what the engine says it took."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from litellm_mlx.config import EngineConfig
from litellm_mlx.engine.engine import Engine
from litellm_mlx.engine.stream import EventStream
from litellm_mlx.models.loader import LoadedModel, load_model
from litellm_mlx.models.names import parse_model_name
from litellm_mlx.types import Constraint, Delta, Done, GenerationRequest, SamplingParams

STOP_TOKENS = (0, 2)


def start(path: Path, **settings: Any) -> Engine[LoadedModel]:
    config = EngineConfig(**settings)
    spec = parse_model_name(str(path))
    engine = Engine(lambda: load_model(spec, config), config, name="tiny")
    engine.model(timeout_s=60)
    return engine


@pytest.fixture(scope="module")
def engine(tiny_model_dir: Path) -> Iterator[Engine[LoadedModel]]:
    engine = start(tiny_model_dir)
    yield engine
    engine.shutdown()


def prompt(num_tokens: int, seed: int = 0) -> tuple[int, ...]:
    rng = random.Random(seed)
    return tuple(rng.randrange(20, 300) for _ in range(num_tokens))


def request(
    prompt_token_ids: tuple[int, ...], max_tokens: int, **options: Any
) -> GenerationRequest:
    """A greedy request that ends by its budget only."""
    bias = tuple((token, -100.0) for token in STOP_TOKENS)
    return GenerationRequest(
        prompt_token_ids,
        max_tokens,
        sampling=SamplingParams(temperature=0, logit_bias=bias),
        deadline_s=time.monotonic() + 60,
        **options,
    )


def outcome(stream: EventStream, n: int = 1) -> tuple[list[str], Done]:
    """The texts of a request and its closing event."""
    texts = [""] * n
    for event in stream:
        if isinstance(event, Delta):
            texts[event.index] += event.text
    assert isinstance(event, Done)
    return texts, event


def test_the_parts_of_a_request_make_up_its_time(engine: Engine[LoadedModel]) -> None:
    constraint = Constraint("regex", "[a-z]{30}")
    _, done = outcome(engine.submit(request(prompt(300), 40, constraint=constraint)))
    timings = done.timings
    parts = (timings.compile_s, timings.queue_s, timings.prefill_s, timings.decode_s)
    assert all(part >= 0 for part in parts)
    assert sum(parts) == pytest.approx(timings.total_s)
    assert 0 < timings.mask_s < timings.decode_s
    assert timings.compile_s > 0 and timings.prefill_s > 0
    assert sum(parts[:3]) <= timings.time_to_first_token_s <= timings.total_s


def test_a_request_without_constraint_spends_nothing_on_masks(engine: Engine[LoadedModel]) -> None:
    _, done = outcome(engine.submit(request(prompt(30), 10)))
    assert done.timings.mask_s == 0


def test_a_long_prompt_goes_in_parts_while_others_decode(tiny_model_dir: Path) -> None:
    """Decode steps come between the parts, and the text is that of a prompt prefilled at once."""
    engine = start(tiny_model_dir, prefix_cache_bytes=0)
    try:
        long_prompt = prompt(1500)
        alone, _ = outcome(engine.submit(request(long_prompt, 20)))
        stream = engine.submit(request(prompt(20), 1500))
        arrivals: list[float] = []
        is_enough = threading.Event()
        reader = threading.Thread(target=_note_arrivals, args=(stream, arrivals, is_enough))
        next(stream)
        reader.start()
        started_s = time.monotonic()
        beside, done = outcome(engine.submit(request(long_prompt, 20)))
        prefilled_s = started_s + done.timings.queue_s + done.timings.prefill_s
        is_enough.set()
        reader.join(20)
    finally:
        engine.shutdown()
    assert beside == alone
    # 1500 tokens are 3 steps at full size; the first chunks alone are more
    assert sum(started_s < arrival < prefilled_s for arrival in arrivals) >= 5


def _note_arrivals(stream: EventStream, arrivals: list[float], is_enough: threading.Event) -> None:
    for _ in stream:
        arrivals.append(time.monotonic())
        if is_enough.is_set():
            break
    stream.close()
