"""Who is prefilled when, how fast, and what the engine says it took."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from litellm_mlx.config import EngineConfig
from litellm_mlx.engine import admission
from litellm_mlx.engine.engine import Engine
from litellm_mlx.engine.sequence import RunningRequest
from litellm_mlx.engine.stream import Channel, EventStream
from litellm_mlx.engine.worker import Worker
from litellm_mlx.errors import KVBudgetError
from litellm_mlx.kvcache.cost import measure_cost
from litellm_mlx.kvcache.layers import BatchCache
from litellm_mlx.models.loader import LoadedModel, load_model
from litellm_mlx.models.names import parse_model_name
from litellm_mlx.types import Constraint, Delta, Done, GenerationRequest, SamplingParams
from tests.tiny_engine import start
from tests.tiny_model import make_tiny_model

STOP_TOKENS = (0, 2)


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
        stream = engine.submit(request(prompt(20), 1500, is_streamed=True))
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


# memory ------------------------------------------------------------------------------------------

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("llama", {}),
    "sliding": ("gemma3_text", {"sliding_window": 300, "sliding_window_pattern": 2}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_tokens", [1, 256, 700])
def test_a_row_costs_what_its_caches_hold(kind: str, num_tokens: int, tmp_path: Path) -> None:
    model_type, config = KINDS[kind]
    path = make_tiny_model(tmp_path / kind, model_type=model_type, config=config)
    model = load_model(parse_model_name(str(path)), EngineConfig()).model
    cost = measure_cost(model)
    assert cost is not None
    for num_rows in (1, 3):
        cache = BatchCache.new(model, num_rows)
        for _ in range(num_tokens):  # one by one: a window is as long as the longest pass more
            cache.run(model, mx.array([[5]] * num_rows), [1] * num_rows)
            cache.evaluate()
        assert cache.num_bytes == pytest.approx(num_rows * cost.row_bytes(num_tokens), rel=0.1)


def row_bytes(engine: Engine[LoadedModel], num_tokens: int) -> int:
    cost = measure_cost(engine.model().model)
    assert cost is not None
    return cost.row_bytes(num_tokens)


def test_what_can_never_fit_is_refused_at_once(engine: Engine[LoadedModel]) -> None:
    assert engine._worker is not None
    num_tokens = engine._worker.budget.max_bytes // row_bytes(engine, 1) * 256 + 256
    with pytest.raises(KVBudgetError, match=r"MiB of KV cache, and there are .* MiB"):
        engine.submit(request(prompt(20), num_tokens))


def test_requests_wait_for_memory_and_stay_within_it(
    tiny_model_dir: Path, engine: Engine[LoadedModel]
) -> None:
    """Twelve rows of which three fit: the same texts, and never more bytes."""
    requests = [request(prompt(100 + i, i), 60) for i in range(12)]
    expected = [outcome(engine.submit(r))[0] for r in requests]
    budget = 3 * row_bytes(engine, 256)
    small = start(tiny_model_dir, kv_budget_bytes=budget, prefix_cache_bytes=0)
    try:
        streams = [small.submit(r) for r in requests]
        most_bytes = most_live = 0
        while small.stats().num_waiting or small.stats().num_live:
            stats = small.stats()
            most_bytes = max(most_bytes, stats.kv_bytes)
            most_live = max(most_live, stats.num_live)
            time.sleep(0.001)
        assert [outcome(stream)[0] for stream in streams] == expected
    finally:
        small.shutdown()
    assert 0 < most_bytes <= budget
    assert 2 <= most_live <= 3


@pytest.mark.parametrize("prefix_cache_bytes", [0, 1 << 30])
def test_rows_that_outgrow_the_memory_wait_and_go_on_with_the_same_text(
    tiny_model_dir: Path,
    engine: Engine[LoadedModel],
    prefix_cache_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five rows fit with what they are counted with, and then only half of them.

    One of the rows is seeded, one is constrained and two belong to one request.
    """
    monkeypatch.setattr(admission, "RESERVED_TOKENS", 100)
    bias = tuple((token, -100.0) for token in STOP_TOKENS)
    seeded = SamplingParams(temperature=1.0, seed=3, logit_bias=bias)
    requests = [
        request(prompt(20, 1), 400),
        request(prompt(20, 2), 400, n=2),
        request(prompt(20, 3), 400, constraint=Constraint("regex", "[a-z]{390}")),
        replace(request(prompt(20, 4), 400), sampling=seeded),
    ]
    expected = [outcome(engine.submit(r), r.n)[0] for r in requests]
    budget = 5 * row_bytes(engine, 256)
    small = start(tiny_model_dir, kv_budget_bytes=budget, prefix_cache_bytes=prefix_cache_bytes)
    try:
        streams = [small.submit(r) for r in requests]
        outcomes = [outcome(stream, r.n) for stream, r in zip(streams, requests, strict=True)]
        stats = small.stats()
    finally:
        small.shutdown()
    assert [texts for texts, _ in outcomes] == expected
    assert [done.usage.prompt_tokens for _, done in outcomes] == [20] * 4
    assert stats.num_live == stats.num_waiting == 0
    if prefix_cache_bytes == 0:  # what the rows that left had written goes through the model again
        assert stats.num_prefilled_tokens > 4 * 19 + 2 * 150
    else:
        assert stats.num_prefilled_tokens == 4 * 19


def test_requests_with_one_beginning_wait_for_its_prefill(tiny_model_dir: Path) -> None:
    engine = start(tiny_model_dir)
    head = prompt(400)
    try:
        streams = [engine.submit(request((*head, *prompt(10, i)), 5)) for i in range(8)]
        cached = [outcome(stream)[1].usage.cached_tokens for stream in streams]
        assert sorted(cached) == [0] + [400] * 7
        assert engine.stats().num_prefilled_tokens == 409 + 7 * 9
    finally:
        engine.shutdown()


def test_rows_that_had_to_leave_can_be_cancelled(
    tiny_model_dir: Path, engine: Engine[LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "RESERVED_TOKENS", 100)
    small = start(tiny_model_dir, kv_budget_bytes=4 * row_bytes(engine, 256))
    worker = small._worker
    assert worker is not None
    try:
        streams = [small.submit(request(prompt(20, i), 1000)) for i in range(4)]
        for stream in streams:
            next(stream)
        assert wait_until(lambda: small.stats().num_waiting > 0)
        for stream in streams:
            stream.close()
        assert wait_until(lambda: worker.is_idle)
        assert not (worker._samplers or worker._requests)
    finally:
        small.shutdown()


def wait_until(holds: Callable[[], bool], timeout_s: float = 20) -> bool:
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if holds():
            return True
        time.sleep(0.005)
    return False


def test_the_progress_of_prefill_is_told(tiny_model_dir: Path) -> None:
    """Of a prompt on its way, and of one that waits behind it, until both are through."""
    engine = start(tiny_model_dir, max_batch_size=1, prefill_step_tokens=16)

    def drive(worker: Worker) -> list[tuple[int, int]]:
        asked = [request(prompt(50, i), 2) for i in range(2)]
        runs = [RunningRequest(one, Channel()) for one in asked]
        for run in runs:
            run.sequences = engine._make_sequences(run, engine.model())
            worker.add(run)
        told = [worker.prefill_progress]
        while not worker.is_idle:
            worker.step()
            told.append(worker.prefill_progress)
        return told

    told = engine.call(drive)
    engine.shutdown()
    assert told[:4] == [(0, 100), (16, 100), (32, 100), (48, 100)]
    assert told[-1] == (0, 0)
