"""How does total speed grow with the number of requests, beside mlx-lm's batch and one lock?

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python benchmarks/batch.py
Prints: a table of total tokens/s by rows, and one JSON object as its last line.

Method. One process loads the model once. For every number of rows, in each repeat, the same prompts
are answered greedily at once by

    mlx_lm         mlx-lm's `batch_generate`, free text
    free           this engine, free text
    constrained    this engine, a JSON schema of five fields

A first, unmeasured run of the schema tells each row's number of tokens; free rows have the same
ones, their stop tokens switched off. A speed is all tokens over the whole time, prefill included;
no prompt is cached. Beside them stands the design that many programs have: as many threads, and one
lock round each call. It is run with fewer requests, because its total speed does not depend on how
many wait:

    lock           this engine, one row at a time
    lock_stepwise  the same without fast-forward, as a logits processor in a generate loop does it

Ratios are taken within a repeat.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
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
from _engine import MLXLM, Reply, ask, ask_all, serving, sharing, without_prefix_cache
from _plots import Line, lines
from _tasks import PERSON, TASKS, endless, greedy

from litellm_mlx.engine.engine import Engine
from litellm_mlx.models.loader import LoadedModel
from litellm_mlx.types import GenerationRequest

CHOICES = {"person": PERSON, **TASKS}
ARMS = ("mlx_lm", "free", "constrained")


def total_speed(run: Callable[[], Sequence[Reply]]) -> float:
    """All tokens over the whole time."""
    start_s = time.perf_counter()
    replies = run()
    return sum(reply.num_tokens for reply in replies) / (time.perf_counter() - start_s)


def locked(engine: Engine[LoadedModel], requests: Sequence[GenerationRequest]) -> list[Reply]:
    """A thread per request, and one lock round each call."""
    lock = threading.Lock()

    def call(request: GenerationRequest) -> Reply:
        with lock:
            return ask(engine, request)

    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(call, requests))


def make_arms(
    engine: Engine[LoadedModel],
    stepwise: Engine[LoadedModel],
    mlx_lm: MLXLM,
    constrained: Sequence[GenerationRequest],
    row_counts: Sequence[int],
    num_locked: int,
) -> dict[str, Callable[[], float]]:
    """Every arm by its name and rows; runs each once, which warms up."""
    lengths = [reply.num_tokens for reply in ask_all(engine, constrained)]
    prompts = [request.prompt_token_ids for request in constrained]
    stops = engine.model().stop_token_ids
    free = [endless(prompt, n, stops) for prompt, n in zip(prompts, lengths, strict=True)]
    ask_all(stepwise, free[:1])
    mlx_lm.batch(prompts[:2], [4, 4])

    def batch(rows: int) -> float:
        return sum(lengths[:rows]) / mlx_lm.batch(prompts[:rows], lengths[:rows])

    def ours(requests: Sequence[GenerationRequest]) -> float:
        return total_speed(partial(ask_all, engine, requests))

    arms: dict[str, Callable[[], float]] = {}
    for rows in row_counts:
        arms[f"mlx_lm/{rows}"] = partial(batch, rows)
        arms[f"free/{rows}"] = partial(ours, free[:rows])
        arms[f"constrained/{rows}"] = partial(ours, constrained[:rows])
    waiting = constrained[:num_locked]
    arms["lock"] = partial(total_speed, partial(locked, engine, waiting))
    arms["lock_stepwise"] = partial(total_speed, partial(locked, stepwise, waiting))
    return arms


def ratios(samples: dict[str, list[float]], row_counts: Sequence[int]) -> dict[str, Any]:
    """By number of rows: this engine over each baseline, within each repeat."""
    found: dict[str, Any] = {}
    for rows in row_counts:
        constrained = samples[f"constrained/{rows}"]
        found[str(rows)] = {
            "constrained over mlx_lm": over(constrained, samples[f"mlx_lm/{rows}"]).as_json(),
            "free over mlx_lm": over(samples[f"free/{rows}"], samples[f"mlx_lm/{rows}"]).as_json(),
            "constrained over lock": over(constrained, samples["lock"]).as_json(),
            "constrained over lock_stepwise": over(constrained, samples["lock_stepwise"]).as_json(),
        }
    return found


def show(result: dict[str, Any]) -> None:
    """The figures for a person, as Markdown; each is median (min-max)."""
    speeds = result["tokens_per_s"]
    print_table(
        ("rows", *ARMS, "constrained over mlx_lm", "over lock"),
        (
            (
                rows,
                *(f"{Spread(**speeds[f'{arm}/{rows}']):.1f}" for arm in ARMS),
                f"{Spread(**ratio['constrained over mlx_lm']):.2f}",
                f"{Spread(**ratio['constrained over lock']):.2f}",
            )
            for rows, ratio in result["ratios"].items()
        ),
    )
    for arm in ("lock", "lock_stepwise"):
        print(f"{arm}: {Spread(**speeds[arm]):.1f} tokens/s")
    print()


def plot(result: dict[str, Any], path: Path) -> None:
    """Total speed over the number of rows."""
    rows = result["options"]["rows"]
    speeds = result["tokens_per_s"]

    def points(arm: str) -> list[tuple[float, float]]:
        return [(n, speeds[f"{arm}/{n}"]["median"]) for n in rows]

    lock = speeds["lock"]["median"]
    most = 16 if 16 in rows else rows[-1]
    gain = result["ratios"][str(most)]["constrained over lock"]["median"]
    lines(
        path,
        f"{most} structured answers at once: {gain:.1f} times the speed of one lock",
        ("requests at once", "tokens/s, all together"),
        [
            Line("one global lock", [(n, lock) for n in rows], is_dashed=True),
            Line("mlx-lm batch_generate,\nfree text", points("mlx_lm")),
            Line("litellm-mlx,\nJSON schema", points("constrained"), is_ours=True),
        ],
        ticks=rows,
        log_x=True,
    )


def main() -> None:
    """Measure, print the table, print the JSON line."""
    options = parser(__doc__)
    add_plot(options)
    options.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    options.add_argument("--task", choices=CHOICES, default="person", help="schema (person)")
    add_count(options, "--tokens", 256, "budget of every answer")
    add_count(options, "--locked", 8, "requests that wait for the lock")
    options.set_defaults(repeats=3)
    given = options.parse_args()
    # All rows must be in the batch at once, or the arm measures the queue.
    most = max(given.rows)
    settings = {"max_batch_size": max(most, 32)}
    task = CHOICES[given.task]
    with ExitStack() as stack:
        engine = stack.enter_context(serving(given.model, without_prefix_cache(**settings)))
        config = without_prefix_cache(**settings, fast_forward=False)
        stepwise = stack.enter_context(sharing(engine, config))
        loaded = engine.model()
        mlx_lm = MLXLM(loaded)
        stack.callback(mlx_lm.close)
        say("warming up", quiet=given.json)
        constrained = [
            greedy(task.prompt(loaded.tokenizer, row), given.tokens, task.constraint)
            for row in range(most)
        ]
        arms = make_arms(engine, stepwise, mlx_lm, constrained, given.rows, given.locked)
        samples = take_turns(arms, given.repeats, quiet=given.json)
        result = {
            **heading("batch", loaded, given),
            "prompt_tokens": len(constrained[0].prompt_token_ids),
            "tokens_per_s": {name: Spread.of(runs).as_json() for name, runs in samples.items()},
            "ratios": ratios(samples, given.rows),
        }
    if not given.json:
        show(result)
    finish(result, given, plot)


if __name__ == "__main__":
    main()
