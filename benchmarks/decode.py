"""Does a structured answer come sooner than free text of the same length?

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python benchmarks/decode.py
Prints: a table of decode speeds, and one JSON object as its last line.

Method. One process loads the model once. Three schemas of DSPy programs are answered greedily:
a knowledge graph, a reflection of seven strings, and a chain of thought with one string. A first,
unmeasured run warms up and tells how many tokens each answer has; every arm then
completes the same prompts by the same numbers of tokens, stop tokens switched off where the text is
free. Arms, one after the other, in turned order every second repeat:

    raw            mlx-lm's `stream_generate`, free, on the same weights
    free           this engine, free
    constrained    this engine, the schema, every token sampled
    fast_forward   this engine, the schema, forced tokens are not sampled
    lookup         the same, as it is by default: tokens are guessed from prompt and text as well

for one row, and the engine's for 16 rows with different prompts. `long_string` is a schema with one
string that goes on until the token budget: nothing in it is forced but its braces, which are not
counted, so that it shows what masks cost. A speed is of decoding only: all tokens of an answer,
over the time from the end of its prompt's prefill to its last token; rows are timed from the first
one's prefill to the last one's last token, so a later row's prefill counts against them. A lone
row's first token comes of the pass that takes the rest of its prompt, and is not counted. Ratios
are taken within a repeat, and their median is given. `passes_per_token` are forward passes of
decoding over the tokens of the longest answer: 1 where each token takes a pass, whatever the number
of rows. The time of a mask is measured alone: the tokens of an answer are replayed through a fresh
guide, without a model beside it; `hot` one after the other, `cold` with memory read through the
processor's caches before each, as a forward pass does. `equal_texts` is the share of answers that
are the same as with every token sampled.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
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
    print_table,
    say,
    take_turns,
)
from _engine import MLXLM, Work, ask_all, serving, sharing, without_prefix_cache
from _plots import Bar, bars
from _tasks import LONG_STRING, TASKS, Task, endless, greedy

from litellm_mlx.engine.engine import Engine
from litellm_mlx.grammar.compiler import compile_constraint
from litellm_mlx.grammar.guide import Guide
from litellm_mlx.models.loader import LoadedModel
from litellm_mlx.types import Delta, GenerationRequest

ROWS_TASK = "knowledge_graph"  # the one that is measured with many rows in every way
MASK_REPLAYS, MASK_TOKENS = 3, 64
EVICTION_BYTES = 160 * 2**20  # gives the same cold figures as float32 products of SmolLM2's head


@dataclass(frozen=True, slots=True)
class Sample:
    """One arm, once."""

    tokens_per_s: float  # of decoding, all rows together
    first_text_s: float  # of the first row, prefill included
    answer_s: float  # whole, of the last row
    num_tokens: int
    num_longest: int
    num_passes: int | None = None  # mlx-lm does not count its own
    num_forced: int = 0
    num_guessed: int = 0
    num_right: int = 0
    texts: tuple[str, ...] = ()

    @property
    def passes_per_token(self) -> float:
        """1 where every token of the longest answer takes a pass of its own."""
        return (self.num_passes or 0) / self.num_longest


class Bench:
    """The arms over one loaded model.

    Args:
        stepwise: an engine that samples every token.
        forward: one that does not sample what is forced.
        default: one that guesses as well.
        mlx_lm: on the same weights.
        num_tokens: budget of every answer.
        num_long_tokens: length of the string that goes on.
        num_rows: of the arms with many rows.
    """

    def __init__(
        self,
        stepwise: Engine[LoadedModel],
        forward: Engine[LoadedModel],
        default: Engine[LoadedModel],
        mlx_lm: MLXLM,
        *,
        num_tokens: int,
        num_long_tokens: int,
        num_rows: int,
    ) -> None:
        self.loaded = default.model()
        self._stepwise = stepwise
        self._forward = forward
        self._default = default
        self._mlx_lm = mlx_lm
        self._num_tokens = num_tokens
        self._num_long_tokens = num_long_tokens
        self._num_rows = num_rows
        self._tasks = {**TASKS, "long_string": LONG_STRING}
        self._lengths: dict[str, list[int]] = {}
        self.num_closed_by_budget = 0

    def warm_up(self) -> None:
        """Run every kind of arm once, and keep the answers' lengths."""
        for name, task in self._tasks.items():
            self._keep_lengths(name, self._requests(task, 1))
        rows = self._requests(TASKS[ROWS_TASK], self._num_rows)
        self._keep_lengths(f"{ROWS_TASK}_rows", rows)
        ask_all(self._stepwise, self._free(TASKS[ROWS_TASK], [4] * self._num_rows))
        self._mlx_lm.stream(self._prompt(LONG_STRING, 0), 4)

    def _keep_lengths(self, name: str, requests: list[GenerationRequest]) -> None:
        replies = ask_all(self._default, requests)
        self._lengths[name] = [reply.num_tokens for reply in replies]
        self.num_closed_by_budget += sum(reply.num_closed_by_budget for reply in replies)

    def arms(self) -> dict[str, Callable[[], Sample]]:
        """What is measured; call it after the warm-up."""
        arms: dict[str, Callable[[], Sample]] = {}
        for name, task in self._tasks.items():
            lengths = self._lengths[name]
            arms[f"{name}/raw"] = partial(self.raw, task, lengths[0])
            constrained = self._requests(task, 1)
            if task is LONG_STRING:
                arms[f"{name}/constrained"] = partial(
                    self.ours, self._forward, constrained, counts_forced=False
                )
                continue
            arms[f"{name}/constrained"] = partial(self.ours, self._stepwise, constrained)
            arms[f"{name}/fast_forward"] = partial(self.ours, self._forward, constrained)
            arms[f"{name}/lookup"] = partial(self.ours, self._default, constrained)
            if name == ROWS_TASK:
                arms[f"{name}/free"] = partial(self.ours, self._stepwise, self._free(task, lengths))
        task, rows = TASKS[ROWS_TASK], f"rows{self._num_rows}"
        lengths = self._lengths[f"{ROWS_TASK}_rows"]
        many = self._requests(task, self._num_rows)
        free = self._free(task, lengths)
        arms[f"{ROWS_TASK}/free_{rows}"] = partial(self.ours, self._stepwise, free)
        arms[f"{ROWS_TASK}/constrained_{rows}"] = partial(self.ours, self._stepwise, many)
        arms[f"{ROWS_TASK}/fast_forward_{rows}"] = partial(self.ours, self._forward, many)
        for name, task in TASKS.items():
            many = self._requests(task, self._num_rows)
            arms[f"{name}/lookup_{rows}"] = partial(self.ours, self._default, many)
        return arms

    def raw(self, task: Task, num_tokens: int) -> Sample:
        """Decode with mlx-lm alone."""
        whole_s, prefill_s, first_s = self._mlx_lm.stream(self._prompt(task, 0), num_tokens)
        speed = num_tokens / (whole_s - prefill_s)
        return Sample(speed, first_s, whole_s, num_tokens, num_tokens)

    def ours(
        self,
        engine: Engine[LoadedModel],
        requests: list[GenerationRequest],
        *,
        counts_forced: bool = True,
    ) -> Sample:
        """Decode with an engine, a request and a calling thread per row."""
        before = engine.stats()
        replies = ask_all(engine, requests)
        work = Work.between(before, engine.stats())
        start_s = min(reply.prefilled_s for reply in replies)
        end_s = max(reply.end_s for reply in replies)
        num_tokens = sum(reply.num_tokens for reply in replies)
        num_counted = num_tokens - (0 if counts_forced else work.num_forced_tokens)
        num_counted -= len(requests) == 1
        return Sample(
            tokens_per_s=num_counted / (end_s - start_s),
            first_text_s=min(reply.first_token_s for reply in replies),
            answer_s=end_s - replies[0].start_s,
            num_tokens=num_tokens,
            num_longest=max(reply.num_tokens for reply in replies),
            num_passes=work.num_passes,
            num_forced=work.num_forced_tokens,
            num_guessed=work.num_guessed_tokens,
            num_right=work.num_right_guesses,
            texts=tuple(reply.text for reply in replies),
        )

    def mask_costs(self) -> dict[str, Any]:
        """Microseconds per token of the knowledge graph's guide, and the compile time."""
        import numpy as np

        task = TASKS[ROWS_TASK]
        request = greedy(
            self._prompt(task, 0), self._num_tokens, task.constraint, num_top_logprobs=0
        )
        token_ids = [
            entry.token_id
            for event in self._stepwise.submit(request)
            if isinstance(event, Delta)
            for entry in event.logprobs
        ][:MASK_TOKENS]
        num_words = self.loaded.vocabulary.num_bitmask_words
        index = compile_constraint(task.constraint, self.loaded.vocabulary)
        memory = np.ones(EVICTION_BYTES, dtype=np.uint8)

        def replay(between: Callable[[], object]) -> dict[str, Any]:
            runs = [
                _replay(index.guide(), token_ids, num_words, between) for _ in range(MASK_REPLAYS)
            ]
            fills, advances = zip(*runs, strict=True)
            return {
                "fill": Spread.of(fills).as_json(1),
                "advance": Spread.of(advances).as_json(1),
            }

        return {
            "mask_us_per_token": {"hot": replay(lambda: None), "cold": replay(memory.max)},
            "compile_ms": round(1e3 * index.compile_s, 2),
        }

    def _prompt(self, task: Task, row: int) -> tuple[int, ...]:
        return task.prompt(self.loaded.tokenizer, row)

    def _requests(self, task: Task, num_rows: int) -> list[GenerationRequest]:
        budget = self._num_long_tokens if task is LONG_STRING else self._num_tokens
        constraint = task.constraint
        return [greedy(self._prompt(task, row), budget, constraint) for row in range(num_rows)]

    def _free(self, task: Task, lengths: list[int]) -> list[GenerationRequest]:
        stops = self.loaded.stop_token_ids
        return [endless(self._prompt(task, row), n, stops) for row, n in enumerate(lengths)]


def _replay(
    guide: Guide, token_ids: list[int], num_words: int, between: Callable[[], object]
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


def ratios(samples: dict[str, list[Sample]], num_rows: int) -> dict[str, Spread]:
    """Speeds over each other, within each repeat."""
    speeds = {name: [run.tokens_per_s for run in runs] for name, runs in samples.items()}
    rows = f"rows{num_rows}"

    def compare(arm: str, base: str) -> Spread:
        return over(speeds[arm], speeds[base])

    found = {}
    for task in TASKS:
        raw = f"{task}/raw"
        for arm in ("lookup", "fast_forward", "constrained"):
            found[f"{task}: {arm} over raw"] = compare(f"{task}/{arm}", raw)
    for arm in ("lookup", "fast_forward"):
        per_repeat = [
            [a / b for a, b in zip(speeds[f"{t}/{arm}"], speeds[f"{t}/raw"], strict=True)]
            for t in TASKS
        ]
        means = [sum(ratios) / len(TASKS) for ratios in zip(*per_repeat, strict=True)]
        found[f"mean of the schemas: {arm} over raw"] = Spread.of(means)
    found["long_string over raw"] = compare("long_string/constrained", "long_string/raw")
    task = ROWS_TASK
    found["free over raw"] = compare(f"{task}/free", f"{task}/raw")
    for arm in ("lookup", "fast_forward"):
        found[f"{rows}: {arm} over free"] = compare(f"{task}/{arm}_{rows}", f"{task}/free_{rows}")
    found[f"{rows} over 1"] = compare(f"{task}/lookup_{rows}", f"{task}/lookup")
    return found


def equal_texts(samples: dict[str, list[Sample]]) -> dict[str, float]:
    """The share of answers that fast-forward and guesses leave as they are, by arm."""
    shares = {}
    for name, runs in samples.items():
        task, _, arm = name.partition("/")
        kind, _, rows = arm.partition("_rows")
        stepwise = samples.get(f"{task}/constrained" + (f"_rows{rows}" if rows else ""))
        if kind in ("fast_forward", "lookup") and stepwise is not None:
            pairs = list(zip(runs[-1].texts, stepwise[-1].texts, strict=True))
            shares[name] = round(sum(a == b for a, b in pairs) / len(pairs), 3)
    return shares


def arm_figures(runs: list[Sample]) -> dict[str, Any]:
    """One arm's repeats."""
    last = runs[-1]
    figures: dict[str, Any] = {
        "tokens_per_s": Spread.of([run.tokens_per_s for run in runs]).as_json(),
        "first_text_ms": Spread.of([1e3 * run.first_text_s for run in runs]).as_json(1),
        "answer_s": Spread.of([run.answer_s for run in runs]).as_json(),
        "tokens": last.num_tokens,
    }
    if last.num_passes is not None:
        per_token = Spread.of([run.passes_per_token for run in runs])
        figures |= {
            "passes_per_token": per_token.as_json(),
            "forced_share": round(last.num_forced / last.num_tokens, 3),
            "right_share": round(last.num_right / last.num_tokens, 3),
            "wrong_share": round((last.num_guessed - last.num_right) / last.num_tokens, 3),
        }
    return figures


def show(result: dict[str, Any]) -> None:
    """The figures for a person, as Markdown; each is median (min-max)."""
    print_table(
        (
            *("arm", "tokens", "decode tokens/s", "passes per token"),
            *("forced", "guessed", "guessed wrong", "whole answer s"),
        ),
        (
            (
                name,
                arm["tokens"],
                _spread(arm["tokens_per_s"], 1),
                _spread(arm["passes_per_token"], 2) if "passes_per_token" in arm else "-",
                *(
                    f"{arm[share]:.0%}" if share in arm else "-"
                    for share in ("forced_share", "right_share", "wrong_share")
                ),
                _spread(arm["answer_s"], 2),
            )
            for name, arm in result["arms"].items()
        ),
    )
    print_table(
        ("ratio", "median (min-max)"),
        ((name, _spread(ratio, 3)) for name, ratio in result["ratios"].items()),
    )
    print_table(
        ("mask us per token", "fill", "advance"),
        (
            (name, _spread(mask["fill"], 0), _spread(mask["advance"], 0))
            for name, mask in result["mask_us_per_token"].items()
        ),
    )
    print(f"compile {result['compile_ms']:.1f} ms; same texts in steps: {result['equal_texts']}\n")


def _spread(figures: dict[str, float], digits: int) -> str:
    return f"{Spread(**figures):.{digits}f}"


def plot(result: dict[str, Any], path: Path) -> None:
    """A structured answer beside free text of the same length."""
    arms = result["arms"]

    def bar(label: str, arm: str, *, is_ours: bool = False) -> Bar:
        return Bar(label, arms[arm]["tokens_per_s"]["median"], is_ours)

    groups = [
        (
            task.replace("_", " "),
            (
                bar("mlx-lm, free text", f"{task}/raw"),
                bar("litellm-mlx, JSON schema", f"{task}/lookup", is_ours=True),
            ),
        )
        for task in TASKS
    ]
    gain = result["ratios"]["mean of the schemas: lookup over raw"]["median"]
    title = f"A structured answer decodes at {gain:.2f} times the speed of free text"
    bars(path, title, groups, "tokens/s", 1)


def main() -> None:
    """Measure, print the tables, print the JSON line."""
    options = parser(__doc__)
    add_plot(options)
    add_count(options, "--tokens", 256, "budget of every answer")
    add_count(options, "--long-string-tokens", 64, "of the string that goes on")
    add_count(options, "--rows", 16, "requests that decode together")
    options.set_defaults(repeats=3)
    given = options.parse_args()
    # All rows must be in the batch at once, or the arm measures the queue.
    settings = {"max_batch_size": max(given.rows, 32)}
    with ExitStack() as stack:
        default = stack.enter_context(serving(given.model, without_prefix_cache(**settings)))
        stepwise, forward = (
            stack.enter_context(sharing(default, without_prefix_cache(**settings, **less)))
            for less in ({"fast_forward": False}, {"prompt_lookup": False})
        )
        mlx_lm = MLXLM(default.model())
        stack.callback(mlx_lm.close)
        bench = Bench(
            stepwise,
            forward,
            default,
            mlx_lm,
            num_tokens=given.tokens,
            num_long_tokens=given.long_string_tokens,
            num_rows=given.rows,
        )
        say("warming up", quiet=given.json)
        bench.warm_up()
        samples = take_turns(bench.arms(), given.repeats, quiet=given.json)
        result = {
            **heading("decode", bench.loaded, given),
            "arms": {name: arm_figures(runs) for name, runs in samples.items()},
            "ratios": {k: ratio.as_json() for k, ratio in ratios(samples, given.rows).items()},
            "equal_texts": equal_texts(samples),
            "answers_closed_by_budget": bench.num_closed_by_budget,
            **bench.mask_costs(),
        }
    if not given.json:
        show(result)
    finish(result, given, plot)


if __name__ == "__main__":
    main()
