"""What does the package add to a call, and to a streamed chunk, beside LiteLLM's own work?

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python benchmarks/overhead.py
Prints: a table of milliseconds, and one JSON object as its last line.

Method. The model is two random layers, so that its steps are short and the rest stands out; with
`--model` it is any other. A call goes through `litellm.completion`; the time that the engine's
thread spends in its steps during the call is taken off its wall time. The same call with LiteLLM's
`mock_response`, which never leaves LiteLLM, is the baseline; what remains above it is ours:
translating the request, compiling its constraint (cached after the first time), handing over
between threads, and building the answer. Calls of all kinds take turns.

A stream is timed from its first chunk to its last, with the steps taken off, and divided by its
chunks. The caller works on one chunk while the engine computes the next, so that this can come out
below zero; `caller_cpu` therefore gives the processor time of the calling thread per chunk, which
hides nothing of ours but the engine's thread. `custom` is a LiteLLM custom provider that hands out
ready-made chunks: the least that any provider which registers itself can cost.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import litellm
from _common import Spread, add_count, add_plot, finish, heading, parser, print_table, say
from _plots import Bar, bars
from litellm.llms.custom_llm import CustomLLM
from litellm.types.utils import Delta, ModelResponseStream, StreamingChoices

sys.path.insert(0, str(Path(__file__).parents[1]))  # the maker of random weights is the tests' own

import litellm_mlx
from litellm_mlx.engine.engine import Engine
from litellm_mlx.models.blas import choose_blas
from litellm_mlx.models.loader import LoadedModel
from tests.tiny_model import make_tiny_model

MESSAGES = [{"role": "user", "content": "Name three rivers of France."}]
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 1000, "maximum": 9999}},
    "required": ["n"],
    "additionalProperties": False,
}
RESPONSE_FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
MOCK_CHUNK = 3  # characters; LiteLLM cuts a mocked answer so


class StepClock:
    """How long an engine's thread has been in its steps; it replaces the worker's `step`."""

    def __init__(self, engine: Engine[LoadedModel]) -> None:
        worker = engine._worker
        assert worker is not None, "the engine has loaded its model"
        self._step = worker.step
        self.busy_s = 0.0
        worker.step = self._timed  # type: ignore[method-assign]  # no hook is worth having for this

    def _timed(self) -> None:
        start_s = time.perf_counter()
        self._step()
        self.busy_s += time.perf_counter() - start_s


class ReadyMade(CustomLLM):
    """A provider whose chunks are there before they are asked for."""

    def __init__(self, num_chunks: int) -> None:
        super().__init__()
        self._num_chunks = num_chunks

    def streaming(self, *args: Any, **kwargs: Any) -> Iterator[ModelResponseStream]:  # type: ignore[override]  # LiteLLM takes more than it annotates
        """Single letters, then the end."""
        for _ in range(self._num_chunks):
            yield _chunk(Delta(content="a", role="assistant"))
        yield _chunk(Delta(), finish_reason="stop")


def _chunk(delta: Delta, finish_reason: str | None = None) -> ModelResponseStream:
    choice = StreamingChoices(index=0, delta=delta, finish_reason=finish_reason)
    return ModelResponseStream(model="ready", choices=[choice])


@dataclass(frozen=True, slots=True)
class Call:
    """Milliseconds of one call, or of one chunk."""

    wall_ms: float
    rest_ms: float  # without the engine's steps
    caller_cpu_ms: float


class Bench:
    """The kinds of calls, on one engine."""

    def __init__(self, model: str, engine: Engine[LoadedModel], num_chunks: int) -> None:
        self._model = model
        self._clock = StepClock(engine)
        self._num_chunks = num_chunks
        litellm.custom_provider_map.append(
            {"provider": "ready", "custom_handler": ReadyMade(num_chunks)}
        )
        litellm.utils.custom_llm_setup()
        self.calls: dict[str, Callable[[], Call]] = {
            "mock": partial(self._call, mock_response="ok"),
            "free": self._call,
            "schema": partial(self._call, response_format=RESPONSE_FORMAT, max_tokens=32),
        }
        # Forbidden stop tokens make every stream as long as the mocked one.
        stops = sorted(engine.model().stop_token_ids)
        ours = {"logit_bias": {str(token_id): -100 for token_id in stops}, "temperature": 0}
        self.streams: dict[str, Callable[[], Call]] = {
            "mock": partial(self._stream, mock_response="a" * MOCK_CHUNK * num_chunks),
            "custom": partial(self._stream, model="ready/made"),
            "free": partial(self._stream, max_tokens=num_chunks, **ours),
        }

    def _call(self, **options: Any) -> Call:
        options = {"max_tokens": 4, "temperature": 0} | options
        return self._timed(lambda: self._completion(**options), 1)

    def _stream(self, **options: Any) -> Call:
        chunks = iter(self._completion(stream=True, **options))
        next(chunks)
        num_left = 0

        def drain() -> None:
            nonlocal num_left
            num_left = sum(1 for _ in chunks)

        whole = self._timed(drain, 1)
        return Call(
            *(figure / num_left for figure in (whole.wall_ms, whole.rest_ms, whole.caller_cpu_ms))
        )

    def _completion(self, **options: Any) -> Any:
        return litellm.completion(**{"model": self._model, "messages": MESSAGES} | options)

    def _timed(self, work: Callable[[], object], count: int) -> Call:
        busy_s, cpu_s, start_s = self._clock.busy_s, time.thread_time(), time.perf_counter()
        work()
        wall_s = time.perf_counter() - start_s
        cpu_s = time.thread_time() - cpu_s
        rest_s = wall_s - (self._clock.busy_s - busy_s)
        return Call(*(1e3 * figure / count for figure in (wall_s, rest_s, cpu_s)))


def measure(
    arms: dict[str, Callable[[], Call]], repeats: int, per_repeat: int
) -> dict[str, list[Call]]:
    """Per repeat, the medians of many calls of each kind, which take turns; one repeat warms up."""
    results: dict[str, list[Call]] = {name: [] for name in arms}
    for repeat in range(repeats + 1):
        found: dict[str, list[Call]] = {name: [] for name in arms}
        for _ in range(per_repeat):
            for name, arm in arms.items():
                found[name].append(arm())
        if repeat:
            for name, calls in found.items():
                results[name].append(_median(calls))
    return results


def _median(calls: list[Call]) -> Call:
    return Call(
        Spread.of([call.wall_ms for call in calls]).median,
        Spread.of([call.rest_ms for call in calls]).median,
        Spread.of([call.caller_cpu_ms for call in calls]).median,
    )


def summarise(results: dict[str, list[Call]]) -> dict[str, Any]:
    """Spreads of every kind, and what lies above the mocked one, within each repeat."""
    mock = results["mock"]

    def above(calls: list[Call], figure: str) -> dict[str, float]:
        pairs = zip(calls, mock, strict=True)
        return Spread.of([getattr(a, figure) - getattr(b, figure) for a, b in pairs]).as_json(4)

    return {
        name: {
            figure: Spread.of([getattr(call, figure) for call in calls]).as_json(4)
            for figure in ("wall_ms", "rest_ms", "caller_cpu_ms")
        }
        | {
            "above_mock_ms": above(calls, "rest_ms"),
            "cpu_above_mock_ms": above(calls, "caller_cpu_ms"),
        }
        for name, calls in results.items()
    }


def show(result: dict[str, Any]) -> None:
    """The figures for a person, as Markdown; each is median (min-max)."""
    figures = ("wall_ms", "rest_ms", "above_mock_ms", "caller_cpu_ms", "cpu_above_mock_ms")
    for kind in ("per_call", "per_chunk"):
        print_table(
            (f"{kind.replace('_', ' ')}, ms", *(name.removesuffix("_ms") for name in figures)),
            (
                (name, *(f"{Spread(**found[figure]):.3f}" for figure in figures))
                for name, found in result[kind].items()
            ),
        )


def plot(result: dict[str, Any], path: Path) -> None:
    """What is above LiteLLM's own time."""
    call, chunk = result["per_call"], result["per_chunk"]
    added = call["schema"]["above_mock_ms"]["median"]
    bars(
        path,
        f"The package adds {added:.2f} ms to a call with a schema",
        [
            (
                "a call, without the model's time",
                (
                    Bar("LiteLLM, mocked answer", call["mock"]["rest_ms"]["median"]),
                    Bar("litellm-mlx, free text", call["free"]["rest_ms"]["median"], True),
                    Bar("litellm-mlx, JSON schema", call["schema"]["rest_ms"]["median"], True),
                ),
            ),
            (
                "a streamed chunk, the caller's processor time",
                (
                    Bar("LiteLLM, mocked answer", chunk["mock"]["caller_cpu_ms"]["median"]),
                    Bar("litellm-mlx", chunk["free"]["caller_cpu_ms"]["median"], True),
                ),
            ),
        ],
        "ms",
        2,
    )


def main() -> None:
    """Measure, print the tables, print the JSON line."""
    options = parser(__doc__)
    add_plot(options)
    add_count(options, "--calls", 100, "of each kind per repeat")
    add_count(options, "--chunks", 64, "of every stream")
    options.set_defaults(repeats=5, model="random")
    given = options.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        name = given.model.removeprefix("mlx/")
        if name == "random":
            choose_blas()  # before the maker imports MLX
            name = str(make_tiny_model(folder / "model"))
        stack.callback(litellm_mlx.unload_all)
        engine = litellm_mlx.handler.registry.engine(name)
        loaded = engine.model()
        bench = Bench(f"mlx/{name}", engine, given.chunks)
        say("calls", quiet=given.json)
        calls = measure(bench.calls, given.repeats, given.calls)
        say("streams", quiet=given.json)
        streams = measure(bench.streams, given.repeats, max(given.calls // 4, 1))
        result = {
            **heading("overhead", loaded, given),
            "per_call": summarise(calls),
            "per_chunk": summarise(streams),
        }
    if not given.json:
        show(result)
    finish(result, given, plot)


if __name__ == "__main__":
    main()
