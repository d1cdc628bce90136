"""What does decoding through the engine cost, free and constrained, beside mlx-lm alone?

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python benchmarks/decode.py
Prints: a table of decode speeds, and one JSON object as its last line.

Method. One process loads the model once. Every repeat measures five arms one after the other, in
turned order every second time, after one warm-up of each:

    raw                mlx-lm's `stream_generate`, greedy, no constraint, 1 row
    free               this engine, greedy, no constraint, 1 row
    constrained        this engine, greedy, a JSON schema, 1 row
    free_rows          as free, 16 rows with different prompts
    constrained_rows   as constrained, 16 rows with different prompts

All arms complete the same prompts by the same number of tokens. A speed is of decoding only: N
tokens arrive in N - 1 intervals, timed by the caller from its first token to its last; rows are
timed from the first row's first token to the last row's last, so a later row's prefill counts
against them. Ratios are taken within a repeat, and their median is given. The schema is a
knowledge graph whose list of nodes is too long to end; no token is appended without a forward
pass. The time of a mask is measured alone: the tokens of a constrained completion are replayed
through a fresh guide, without a model beside it; `hot` one after the other, `cold` with memory read
through the processor's caches before each, as a forward pass does. A pause between arms lets the
BLAS threads of the last one, which spin for 0.2 s, go to sleep: raw runs on a thread of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from _common import Spread, add_count, machine, parser, say, versions

from litellm_mlx.config import EngineConfig
from litellm_mlx.engine.engine import Engine
from litellm_mlx.engine.stream import EventStream
from litellm_mlx.grammar.compiler import compile_constraint
from litellm_mlx.grammar.constraint import json_schema_constraint
from litellm_mlx.grammar.guide import Guide
from litellm_mlx.models.loader import LoadedModel, load_model
from litellm_mlx.models.names import parse_model_name
from litellm_mlx.types import Constraint, Delta, Done, GenerationRequest, SamplingParams

PAUSE_S = 0.5
MASK_REPLAYS = 5
EVICTION_BYTES = 160 * 2**20  # gives the same cold figures as float32 products of SmolLM2's head
TOPICS = (
    *("Marie Curie", "Warsaw", "the river Nile", "volcanoes", "chess", "honey bees", "the Moon"),
    *("bridges", "coffee", "glass", "the violin", "maps", "whales", "bread", "railways", "rain"),
)
# A numbered list: the likeliest next token ends it late or never.
PROMPT = "The following is a long numbered list of facts about {}.\n\n1."


@dataclass(frozen=True, slots=True)
class Sample:
    """One arm, once: decode speed of all rows together, and when things were seen."""

    tokens_per_s: float
    wall_tokens_per_s: float  # prefill included
    first_token_s: float  # of the first row
    intervals_s: tuple[float, ...]  # between tokens, of a single row
    cached_tokens: int  # prompt tokens of all rows that were not prefilled again


@dataclass(frozen=True, slots=True)
class Row:
    """What the caller of one request saw."""

    token_times_s: tuple[float, ...]
    num_tokens: int
    token_ids: tuple[int, ...] = ()
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class MaskCost:
    """Microseconds per token of one guide."""

    fill: Spread
    advance: Spread
    total: Spread

    def as_json(self) -> dict[str, dict[str, float]]:
        """The three spreads."""
        spreads = {"total": self.total, "fill": self.fill, "advance": self.advance}
        return {name: spread.as_json(1) for name, spread in spreads.items()}


@dataclass(frozen=True, slots=True)
class ConstraintCost:
    """What the constraint costs beside the model."""

    hot: MaskCost
    cold: MaskCost
    compile_ms: float


class Bench:
    """The arms over one loaded model.

    Args:
        engine: its engine, loaded.
        num_tokens: length of every completion.
        num_rows: of the arms with many rows.
    """

    def __init__(self, engine: Engine[LoadedModel], num_tokens: int, num_rows: int) -> None:
        self._engine = engine
        self._raw_thread = ThreadPoolExecutor(1, "raw")
        self.loaded = engine.model()
        self._num_tokens = num_tokens
        self.constraint = json_schema_constraint(knowledge_graph_schema(num_tokens))
        topics = [_topic(i) for i in range(num_rows)]
        encode = self.loaded.tokenizer.encode
        self.prompts = [tuple(encode(PROMPT.format(topic))) for topic in topics]
        self.arms: dict[str, Callable[[], Sample]] = {
            "raw": self.raw,
            "free": lambda: self.ours(None, 1),
            "constrained": lambda: self.ours(self.constraint, 1),
            "free_rows": lambda: self.ours(None, num_rows),
            "constrained_rows": lambda: self.ours(self.constraint, num_rows),
        }

    def raw(self) -> Sample:
        """Decode with mlx-lm alone, on the engine's weights; the engine sleeps meanwhile.

        On one thread for all repeats, as MLX's streams and a BLAS's helpers belong to threads.
        Not on the main thread: what MLX 0.32.4 compiled there is freed after Python has gone, and
        the process dies at exit when the engine's thread has run too.
        """
        return self._raw_thread.submit(self._raw).result()

    def close(self) -> None:
        """End both threads."""
        self._raw_thread.shutdown()
        self._engine.shutdown()

    def _raw(self) -> Sample:
        from mlx_lm import stream_generate

        prompt = list(self.prompts[0])
        times_s: list[float] = []
        start_s = time.perf_counter()
        for _ in stream_generate(  # a response per token; the last comes when the text is flushed
            self.loaded.model, self.loaded.tokenizer, prompt, max_tokens=self._num_tokens
        ):
            times_s.append(time.perf_counter())
        self._check_length(len(times_s))
        return _sample(start_s, [Row(tuple(times_s), len(times_s))])

    def ours(self, constraint: Constraint | None, num_rows: int) -> Sample:
        """Decode with the engine, a request and a calling thread per row."""
        requests = [self._request(prompt, constraint) for prompt in self.prompts[:num_rows]]
        start_s = time.perf_counter()
        streams = [self._engine.submit(request) for request in requests]
        if num_rows == 1:
            rows = [_consume(streams[0])]
        else:
            with ThreadPoolExecutor(num_rows) as pool:
                rows = list(pool.map(_consume, streams))
        for row in rows:
            self._check_length(row.num_tokens)
        return _sample(start_s, rows)

    def constraint_cost(self) -> ConstraintCost:
        """Compile the constraint and replay one completion through fresh guides of it."""
        import numpy as np

        request = self._request(self.prompts[0], self.constraint, num_top_logprobs=0)
        token_ids = _consume(self._engine.submit(request)).token_ids
        num_words = self.loaded.vocabulary.num_bitmask_words
        index = compile_constraint(self.constraint, self.loaded.vocabulary)
        memory = np.ones(EVICTION_BYTES, dtype=np.uint8)

        def replay(between: Callable[[], object]) -> MaskCost:
            runs = [
                _replay(index.guide(), token_ids, num_words, between) for _ in range(MASK_REPLAYS)
            ]
            return MaskCost(
                fill=Spread.of([fill for fill, _ in runs]),
                advance=Spread.of([advance for _, advance in runs]),
                total=Spread.of([fill + advance for fill, advance in runs]),
            )

        return ConstraintCost(replay(lambda: None), replay(memory.max), 1e3 * index.compile_s)

    def _request(
        self,
        prompt: tuple[int, ...],
        constraint: Constraint | None,
        num_top_logprobs: int | None = None,
    ) -> GenerationRequest:
        return GenerationRequest(
            prompt,
            self._num_tokens,
            SamplingParams(temperature=0),
            constraint=constraint,
            num_top_logprobs=num_top_logprobs,
        )

    def _check_length(self, num_tokens: int) -> None:
        """Completions of unlike length cannot be compared."""
        if num_tokens != self._num_tokens:
            raise SystemExit(
                f"{self.loaded.name} ended after {num_tokens} of {self._num_tokens} tokens; "
                "ask for fewer with --tokens"
            )


def knowledge_graph_schema(num_nodes: int) -> dict[str, Any]:
    """JSON schema of a knowledge graph with at least `num_nodes` nodes."""
    node = {
        "type": "object",
        "properties": {
            "id": {"type": "integer"},
            "label": {"type": "string", "maxLength": 40},
            "type": {"enum": ["person", "place", "organisation"]},
        },
        "required": ["id", "label", "type"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"nodes": {"type": "array", "items": node, "minItems": num_nodes}},
        "required": ["nodes"],
        "additionalProperties": False,
    }


def _replay(
    guide: Guide, token_ids: tuple[int, ...], num_words: int, between: Callable[[], object]
) -> tuple[float, float]:
    """Microseconds per token of filling the bitmask, and of advancing."""
    import numpy as np

    words = np.zeros(num_words, dtype=np.int32)
    fill_s = advance_s = 0.0
    for token_id in token_ids:
        between()
        start_s = time.perf_counter()
        guide.fill_bitmask(words)
        fill_s += time.perf_counter() - start_s
        between()
        start_s = time.perf_counter()
        guide.advance(token_id)
        advance_s += time.perf_counter() - start_s
    return 1e6 * fill_s / len(token_ids), 1e6 * advance_s / len(token_ids)


def _topic(i: int) -> str:
    """A topic of its own for every row."""
    turn, place = divmod(i, len(TOPICS))
    return (
        TOPICS[place]
        if turn == 0
        else f"{TOPICS[place]} and {TOPICS[(place + turn) % len(TOPICS)]}"
    )


def _consume(stream: EventStream) -> Row:
    """Take a stream's events as a caller would, noting when its text came.

    Every delta is one token in the texts of these prompts; where one is not (half a character),
    the number of tokens is still the engine's own count.
    """
    times_s: list[float] = []
    token_ids: list[int] = []
    num_tokens = cached_tokens = 0
    for event in stream:
        if isinstance(event, Delta):
            times_s.append(time.perf_counter())
            token_ids.extend(entry.token_id for entry in event.logprobs)
        elif isinstance(event, Done):
            num_tokens = event.usage.completion_tokens
            cached_tokens = event.usage.cached_tokens
    return Row(tuple(times_s), num_tokens, tuple(token_ids), cached_tokens)


def _sample(start_s: float, rows: list[Row]) -> Sample:
    first_s = min(row.token_times_s[0] for row in rows)
    last_s = max(row.token_times_s[-1] for row in rows)
    times_s = rows[0].token_times_s if len(rows) == 1 else ()
    return Sample(
        tokens_per_s=sum(row.num_tokens - 1 for row in rows) / (last_s - first_s),
        wall_tokens_per_s=sum(row.num_tokens for row in rows) / (last_s - start_s),
        first_token_s=first_s - start_s,
        intervals_s=tuple(b - a for a, b in itertools.pairwise(times_s)),
        cached_tokens=sum(row.cached_tokens for row in rows),
    )


def measure(bench: Bench, repeats: int, *, quiet: bool) -> dict[str, list[Sample]]:
    """Every arm `repeats` times, interleaved, after one warm-up each."""
    samples: dict[str, list[Sample]] = {name: [] for name in bench.arms}
    for repeat in range(repeats + 1):
        names = list(bench.arms)
        for name in names if repeat % 2 else reversed(names):
            time.sleep(PAUSE_S)
            sample = bench.arms[name]()
            say(f"{repeat}/{repeats} {name} {sample.tokens_per_s:.1f} tokens/s", quiet=quiet)
            if repeat:  # the first is the warm-up
                samples[name].append(sample)
    return samples


def ratios(samples: dict[str, list[Sample]], num_rows: int) -> dict[str, Spread]:
    """Speeds over each other, within each repeat."""

    def over(name: str, base: str) -> Spread:
        pairs = zip(samples[name], samples[base], strict=True)
        return Spread.of([a.tokens_per_s / b.tokens_per_s for a, b in pairs])

    return {
        "free_over_raw": over("free", "raw"),
        "constrained_over_raw": over("constrained", "raw"),
        "constrained_over_free": over("constrained", "free"),
        f"rows{num_rows}_over_1": over("constrained_rows", "constrained"),
        f"free_rows{num_rows}_over_1": over("free_rows", "free"),
    }


def print_table(
    samples: dict[str, list[Sample]], compared: dict[str, Spread], cost: ConstraintCost
) -> None:
    """The figures for a person, as Markdown; each is median (min-max)."""
    print("| arm | decode tokens/s | with prefill tokens/s | first token ms | inter-token ms |")
    print("|---|---|---|---|---|")
    for name, runs in samples.items():
        decode = Spread.of([run.tokens_per_s for run in runs])
        wall = Spread.of([run.wall_tokens_per_s for run in runs])
        first_ms = Spread.of([1e3 * run.first_token_s for run in runs])
        inter_ms = _inter_token_ms(runs)
        inter = f"{inter_ms:.1f}" if inter_ms is not None else "-"
        print(f"| {name} | {decode:.1f} | {wall:.1f} | {first_ms:.0f} | {inter} |")
    print("\n| ratio | median (min-max) |")
    print("|---|---|")
    for name, ratio in compared.items():
        print(f"| {name} | {ratio:.3f} |")
    print("\n| mask us per token | fill | advance |")
    print("|---|---|---|")
    for name, mask in (("hot", cost.hot), ("cold", cost.cold)):
        print(f"| {name} | {mask.fill:.0f} | {mask.advance:.0f} |")
    print(f"\ncompile {cost.compile_ms:.1f} ms\n")


def _inter_token_ms(runs: list[Sample]) -> Spread | None:
    """Median interval of each run; none where rows ran together."""
    if not runs[0].intervals_s:
        return None
    return Spread.of([1e3 * statistics.median(run.intervals_s) for run in runs])


def result(
    bench: Bench,
    options: argparse.Namespace,
    samples: dict[str, list[Sample]],
    compared: dict[str, Spread],
    cost: ConstraintCost,
) -> dict[str, Any]:
    """Everything that was measured, as one JSON object."""
    return {
        "benchmark": "decode",
        "versions": versions(),
        "machine": machine(bench.loaded.hardware),
        "model": bench.loaded.name,
        "weights": bench.loaded.dtype,
        "tokens": options.tokens,
        "rows": options.rows,
        "repeats": options.repeats,
        "prompt_tokens": len(bench.prompts[0]),
        "cached_tokens": {name: runs[-1].cached_tokens for name, runs in samples.items()},
        "medians": {
            name: round(Spread.of([run.tokens_per_s for run in runs]).median, 2)
            for name, runs in samples.items()
        },
        "ratios": {name: round(ratio.median, 3) for name, ratio in compared.items()},
        "tokens_per_s": _spreads(samples, lambda run: run.tokens_per_s),
        "wall_tokens_per_s": _spreads(samples, lambda run: run.wall_tokens_per_s),
        "time_to_first_token_ms": _spreads(samples, lambda run: 1e3 * run.first_token_s),
        "inter_token_ms": {
            name: spread.as_json()
            for name, runs in samples.items()
            if (spread := _inter_token_ms(runs)) is not None
        },
        "ratio_spreads": {name: ratio.as_json() for name, ratio in compared.items()},
        "mask_us_per_token": {"hot": cost.hot.as_json(), "cold": cost.cold.as_json()},
        "compile_ms": round(cost.compile_ms, 2),
    }


def _spreads(
    samples: dict[str, list[Sample]], figure: Callable[[Sample], float]
) -> dict[str, dict[str, float]]:
    return {name: Spread.of([figure(r) for r in runs]).as_json() for name, runs in samples.items()}


def main() -> None:
    """Measure, print the table, print the JSON line."""
    options = parser(__doc__)
    add_count(options, "--tokens", 128, "length of every completion")
    add_count(options, "--rows", 16, "requests that decode together")
    given = options.parse_args()
    if given.tokens < 2:
        options.error("--tokens must be at least 2: a speed needs an interval")
    # All rows must be in the batch at once, or the arm measures the queue.
    config = EngineConfig(max_batch_size=max(given.rows, 32))
    spec = parse_model_name(given.model.removeprefix("mlx/"))
    engine = Engine(lambda: load_model(spec, config), config, name=spec.name)
    with closing(Bench(engine, given.tokens, given.rows)) as bench:
        cost = bench.constraint_cost()
        samples = measure(bench, given.repeats, quiet=given.json)
        compared = ratios(samples, given.rows)
        if not given.json:
            print_table(samples, compared, cost)
        print(json.dumps(result(bench, given, samples, compared, cost)))


if __name__ == "__main__":
    main()
