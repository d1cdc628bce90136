"""Do the others' tokens keep coming while a long prompt arrives?

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python benchmarks/mixed.py
Prints: a table of inter-token times, and one JSON object as its last line.

Method. Four streams decode greedily, two of free text and two under a schema of very many strings.
Each repeat first notes the times between their tokens undisturbed. Then a prompt of 4,000 tokens
arrives, new in every repeat, and the times are noted from its submit to its first token; the
streams end after that. Inter-token times are the callers', all streams together: from one delivery
of text to the next, which may bring several tokens. The time before a stream's first is not among
them. The ratio is the p99 while the prompt is prefilled over the
p50 before, within a repeat. The prompt's own time to the first token stands beside that of a
like prompt that has the engine for itself: what the streams' smoothness costs it.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from _common import (
    Spread,
    add_count,
    add_plot,
    finish,
    heading,
    over,
    parser,
    percentile,
    print_table,
    say,
)
from _engine import ask, serving, without_prefix_cache
from _plots import Bar, bars
from _tasks import LONG_STRING, NAMES, PLACES, endless, greedy

from litellm_mlx.engine.engine import Engine
from litellm_mlx.engine.stream import EventStream
from litellm_mlx.errors import RequestCancelled
from litellm_mlx.grammar.constraint import json_schema_constraint
from litellm_mlx.models.loader import LoadedModel
from litellm_mlx.types import Delta, GenerationRequest

WARM_UP_TOKENS = 256
MAX_STREAM_TOKENS = 4000  # more than any stream gets to
ENDLESS = {"type": "array", "items": {"type": "string"}, "minItems": 500}


@dataclass(slots=True)
class Listener:
    """One stream's caller: notes when tokens come, until it is told to leave."""

    stream: EventStream
    times_s: list[float] = field(default_factory=list)
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        """Begin to listen."""
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()

    def leave(self) -> None:
        """Cancel the request."""
        self.stream.close()
        self.thread.join()

    def gaps_s(self, start_s: float, end_s: float) -> list[float]:
        """Times between two tokens of which the later one came in [start, end)."""
        pairs = itertools.pairwise(tuple(self.times_s))
        return [b - a for a, b in pairs if start_s <= b < end_s]

    def _listen(self) -> None:
        with suppress(RequestCancelled):
            for event in self.stream:
                if isinstance(event, Delta):
                    self.times_s.append(time.perf_counter())


@dataclass(frozen=True, slots=True)
class Sample:
    """One repeat."""

    before_s: list[float]
    during_s: list[float]
    first_token_s: float
    alone_s: float

    @property
    def ratio(self) -> float:
        """p99 while the prompt is prefilled, over the p50 before."""
        return percentile(self.during_s, 0.99) / percentile(self.before_s, 0.5)


class Bench:
    """Streams and long prompts on one engine."""

    def __init__(
        self,
        engine: Engine[LoadedModel],
        *,
        num_streams: int,
        num_prompt_tokens: int,
        num_quiet_tokens: int,
    ) -> None:
        self.loaded = engine.model()
        self._engine = engine
        self._num_streams = num_streams
        self._num_prompt_tokens = num_prompt_tokens
        self._num_quiet_tokens = num_quiet_tokens
        self._num_prompts = 0

    def measure(self, num_prompt_tokens: int | None = None) -> Sample:
        """One repeat; a shorter prompt is enough to warm up."""
        length = num_prompt_tokens or self._num_prompt_tokens
        alone = ask(self._engine, self._long_request(length))
        streams = [replace(self._stream(i), is_streamed=True) for i in self._streams]
        listeners = [Listener(self._engine.submit(stream)) for stream in streams]
        try:
            before = self._quiet_time(listeners)
            start_s = time.perf_counter()
            long = ask(self._engine, self._long_request(length))
            end_s = start_s + long.first_token_s
        finally:
            for listener in listeners:
                listener.leave()
        during = [gap for listener in listeners for gap in listener.gaps_s(start_s, end_s)]
        return Sample(before, during, long.first_token_s, alone.first_token_s)

    def _quiet_time(self, listeners: Sequence[Listener]) -> list[float]:
        """Gaps of all streams while nothing else happens; the first tokens warm up."""
        start = 1 + self._num_quiet_tokens // 4
        while min(len(listener.times_s) for listener in listeners) < start:
            _check(listeners)
        start_s = time.perf_counter()
        enough = start + self._num_quiet_tokens
        while min(len(listener.times_s) for listener in listeners) < enough:
            _check(listeners)
        end_s = time.perf_counter()
        return [gap for listener in listeners for gap in listener.gaps_s(start_s, end_s)]

    @property
    def _streams(self) -> range:
        return range(self._num_streams)

    def _stream(self, number: int) -> GenerationRequest:
        """A request that decodes until it is cancelled: every second one is constrained."""
        prompt = LONG_STRING.prompt(self.loaded.tokenizer, number)
        stops = self.loaded.stop_token_ids
        if number % 2 == 0:
            return endless(prompt, MAX_STREAM_TOKENS, stops)
        return greedy(prompt, MAX_STREAM_TOKENS, json_schema_constraint(ENDLESS))

    def _long_request(self, length: int) -> GenerationRequest:
        """A prompt of so many tokens that begins like no other."""
        self._num_prompts += 1
        text = f"Report {self._num_prompts}. " + " ".join(
            f"{name} went to {place} on day {day}."
            for day in range(1 + length // 8)
            for name, place in [(NAMES[day % len(NAMES)], PLACES[day % len(PLACES)])]
        )
        prompt = tuple(self.loaded.tokenizer.encode(text))[:length]
        assert len(prompt) == length
        return endless(prompt, 2, self.loaded.stop_token_ids)


def _check(listeners: Sequence[Listener]) -> None:
    """Wait a little; a stream that has ended would have us wait for ever."""
    time.sleep(0.005)
    if not all(listener.thread.is_alive() for listener in listeners):
        raise SystemExit("a stream ended before the long prompt came")


def summarise(samples: Sequence[Sample]) -> dict[str, Any]:
    """The figures of all repeats."""

    def figures(gaps: Sequence[list[float]]) -> dict[str, dict[str, float]]:
        return {
            name: Spread.of([1e3 * percentile(values, share) for values in gaps]).as_json(1)
            for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("longest", 1.0))
        }

    first_s = [sample.first_token_s for sample in samples]
    alone_s = [sample.alone_s for sample in samples]
    return {
        "inter_token_ms": {
            "before": figures([sample.before_s for sample in samples]),
            "during": figures([sample.during_s for sample in samples]),
        },
        "tokens_during": Spread.of([len(sample.during_s) for sample in samples]).as_json(0),
        "p99 during over p50 before": Spread.of([sample.ratio for sample in samples]).as_json(),
        "time_to_first_token_s": {
            "alone": Spread.of(alone_s).as_json(),
            "beside streams": Spread.of(first_s).as_json(),
        },
        "first token beside streams over alone": over(first_s, alone_s).as_json(),
    }


def show(result: dict[str, Any]) -> None:
    """The figures for a person, as Markdown; each is median (min-max)."""
    times = result["inter_token_ms"]
    print_table(
        ("between tokens, ms", *times["before"]),
        (
            (name, *(f"{Spread(**spread):.0f}" for spread in found.values()))
            for name, found in times.items()
        ),
    )
    ratio = Spread(**result["p99 during over p50 before"])
    print(f"p99 during over p50 before: {ratio:.2f}")
    for name, spread in result["time_to_first_token_s"].items():
        print(f"first token of the long prompt, {name}: {Spread(**spread):.1f} s")
    print()


def plot(result: dict[str, Any], path: Path) -> None:
    """Inter-token times before and during."""
    times, tokens = result["inter_token_ms"], result["options"]["prompt_tokens"]
    ratio = result["p99 during over p50 before"]["median"]
    names = {"p50": "half of the tokens within", "p99": "99 of 100 within"}
    bars(
        path,
        f"While {tokens:,} tokens arrive, the slowest tokens take {ratio:.1f} times the usual",
        [
            (
                title,
                [Bar(names[p], times[kind][p]["median"], kind == "during") for p in names],
            )
            for kind, title in (
                ("before", "time between tokens, nothing else going on"),
                ("during", "while the long prompt is prefilled"),
            )
        ],
        "ms",
    )


def main() -> None:
    """Measure, print the table, print the JSON line."""
    options = parser(__doc__)
    add_plot(options)
    add_count(options, "--streams", 4, "requests that decode all the time")
    add_count(options, "--prompt-tokens", 4000, "length of the prompt that arrives")
    add_count(options, "--quiet-tokens", 48, "of each stream before that")
    options.add_argument(
        "--pause-steps", type=float, default=1.5, help="see prefill_pause_steps of EngineConfig"
    )
    options.set_defaults(repeats=3)
    given = options.parse_args()
    config = without_prefix_cache(prefill_pause_steps=given.pause_steps)
    with serving(given.model, config) as engine:
        bench = Bench(
            engine,
            num_streams=given.streams,
            num_prompt_tokens=given.prompt_tokens,
            num_quiet_tokens=given.quiet_tokens,
        )
        bench.measure(min(WARM_UP_TOKENS, given.prompt_tokens))
        samples = []
        for repeat in range(1, given.repeats + 1):
            samples.append(bench.measure())
            say(f"{repeat}/{given.repeats} ratio {samples[-1].ratio:.2f}", quiet=given.json)
        result = heading("mixed", bench.loaded, given) | summarise(samples)
    if not given.json:
        show(result)
    finish(result, given, plot)


if __name__ == "__main__":
    main()
