"""Engines as the benchmarks run them, what their callers see, and mlx-lm alone beside them."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from litellm_mlx.config import EngineConfig
from litellm_mlx.engine.engine import Engine, EngineStats
from litellm_mlx.engine.stream import EventStream
from litellm_mlx.models.loader import LoadedModel, load_model
from litellm_mlx.models.names import parse_model_name
from litellm_mlx.types import Delta, Done, Finished, GenerationRequest, Timings, Usage

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply:
    """What the caller of one request saw, on the clock of `time.perf_counter`."""

    start_s: float
    delta_times_s: tuple[float, ...]
    text: str
    usage: Usage
    timings: Timings
    num_closed_by_budget: int = 0

    @property
    def num_tokens(self) -> int:
        """Of all completions of the request."""
        return self.usage.completion_tokens

    @property
    def prefilled_s(self) -> float:
        """When decoding could begin."""
        timings = self.timings
        return self.start_s + timings.compile_s + timings.queue_s + timings.prefill_s

    @property
    def first_token_s(self) -> float:
        """Seconds until the first text came."""
        return self.delta_times_s[0] - self.start_s

    @property
    def end_s(self) -> float:
        """When the last text came."""
        return self.delta_times_s[-1]


@dataclass(frozen=True, slots=True)
class Work:
    """What an engine did between two readings of its stats."""

    num_passes: int
    num_prefilled_tokens: int
    num_completion_tokens: int
    num_forced_tokens: int
    num_guessed_tokens: int
    num_right_guesses: int

    @classmethod
    def between(cls, before: EngineStats, after: EngineStats) -> Work:
        """The difference of two readings."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: getattr(after, name) - getattr(before, name) for name in names})


@contextmanager
def serving(name: str, config: EngineConfig) -> Iterator[Engine[LoadedModel]]:
    """An engine with its model loaded, shut down in the end."""
    spec = parse_model_name(name.removeprefix("mlx/"))
    engine = Engine(lambda: load_model(spec, config), config, name=spec.name)
    try:
        engine.model()
        yield engine
    finally:
        engine.shutdown()


@contextmanager
def sharing(engine: Engine[LoadedModel], config: EngineConfig) -> Iterator[Engine[LoadedModel]]:
    """A second engine over the same weights, with settings of its own."""
    loaded = engine.model()
    second = Engine(lambda: loaded, config, name=f"{loaded.name} again")
    try:
        second.model()
        yield second
    finally:
        second.shutdown()


def without_prefix_cache(**settings: Any) -> EngineConfig:
    """Settings under which a prompt that comes again is prefilled again."""
    return EngineConfig(**settings, prefix_cache_bytes=0)


def ask(engine: Engine[LoadedModel], request: GenerationRequest) -> Reply:
    """Send one request and take all its events."""
    return consume(time.perf_counter(), engine.submit(request))


def ask_all(engine: Engine[LoadedModel], requests: Sequence[GenerationRequest]) -> list[Reply]:
    """Send requests at once; each has a thread that takes its events, as callers have."""
    if len(requests) == 1:
        return [ask(engine, requests[0])]
    start_s = time.perf_counter()
    streams = [engine.submit(request) for request in requests]
    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(lambda stream: consume(start_s, stream), streams))


def consume(start_s: float, stream: EventStream) -> Reply:
    """Take a stream's events to its end, noting when text came."""
    times_s: list[float] = []
    text, num_closed = "", 0
    for event in stream:
        if isinstance(event, Delta):
            times_s.append(time.perf_counter())
            text += event.text
        elif isinstance(event, Finished):
            num_closed += event.closed_by_budget
        elif isinstance(event, Done):
            # A text may be empty, where a random model ends at once.
            times = tuple(times_s) or (time.perf_counter(),)
            return Reply(start_s, times, text, event.usage, event.timings, num_closed)
    raise AssertionError("a stream ends with Done or raises")


class MLXLM:
    """mlx-lm's own generation on an engine's weights; the engine sleeps meanwhile.

    On one thread for all repeats, as MLX's streams and a BLAS's helpers belong to threads. Not on
    the main thread: what MLX 0.32.4 compiled there is freed after Python has gone, and the process
    dies at exit when the engine's thread has run too.

    Args:
        loaded: the model. Its stop tokens are switched off here, so that lengths agree.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._thread = ThreadPoolExecutor(1, "mlx-lm")
        self._model = loaded.model
        self._tokenizer = copy.copy(loaded.tokenizer)
        self._tokenizer.eos_token_ids = ()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def stream(self, prompt: Sequence[int], num_tokens: int) -> tuple[float, float, float]:
        """Seconds of `stream_generate`: whole, until the prompt was in, until the first token."""
        return self._run(lambda: self._stream(prompt, num_tokens))

    def batch(self, prompts: Sequence[Sequence[int]], num_tokens: Sequence[int]) -> float:
        """Seconds of `batch_generate`, each prompt with its own number of tokens."""
        return self._run(lambda: self._batch(prompts, num_tokens))

    def _run(self, work: Callable[[], T]) -> T:
        return self._thread.submit(work).result()

    def _stream(self, prompt: Sequence[int], num_tokens: int) -> tuple[float, float, float]:
        from mlx_lm import stream_generate

        start_s = prefilled_s = time.perf_counter()
        times_s: list[float] = []

        def note(num_processed: int, num_all: int) -> None:
            nonlocal prefilled_s
            if num_processed == num_all - 1:
                prefilled_s = time.perf_counter()

        for _ in stream_generate(  # a response per token; the last comes when the text is flushed
            self._model,
            self._tokenizer,
            list(prompt),
            max_tokens=num_tokens,
            prompt_progress_callback=note,
        ):
            times_s.append(time.perf_counter())
        assert len(times_s) == num_tokens
        return times_s[-1] - start_s, prefilled_s - start_s, times_s[0] - start_s

    def _batch(self, prompts: Sequence[Sequence[int]], num_tokens: Sequence[int]) -> float:
        from mlx_lm import batch_generate

        start_s = time.perf_counter()
        answers = batch_generate(
            self._model,
            self._tokenizer,
            [list(prompt) for prompt in prompts],
            max_tokens=list(num_tokens),
            completion_batch_size=len(prompts),
        )
        took_s = time.perf_counter() - start_s
        assert answers.stats.generation_tokens == sum(num_tokens)
        return took_s
