"""Does memory grow while thousands of requests come and go?

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python benchmarks/memory.py
Prints: resident memory over the requests, and one JSON object as its last line.

Method. A process of its own for every repeat sends 2,000 requests through `litellm.completion`,
from 8 threads: free and under schemas that nobody has sent before, whole and streamed, some with
two completions, some dropped in mid-stream, with prompts that share their beginning and prompts
that share nothing. So that no cache's filling is counted as growth, as many schemas as are kept are
compiled beforehand, and the prefix cache gets a budget that it has filled by request 200. Resident
memory is read after requests 200 and 2,000, each time when no request has been live for two
seconds, in which the engine gives free memory back, and at twenty places on the way; `growth` is
between those two. `peak` is the largest that the system saw of the process, loading included. On a
device with memory of its own, MLX's active and cached bytes stand beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import litellm
from _common import Spread, add_count, add_plot, finish, heading, parser, print_table, say
from _plots import Line, lines
from _tasks import NAMES

import litellm_mlx
from litellm_mlx.config import ENV_PREFIX
from litellm_mlx.grammar.constraint import json_schema_constraint

MIB = 2**20
NUM_READINGS = 20
IDLE_S = 2.0  # before a reading; the engine tidies up after one
NUM_KEPT_SCHEMAS = 256  # compiled ones, by IndexCache's default


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    shown = subprocess.run(  # macOS
        ["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, check=True
    )
    return int(shown.stdout) * 1024


def peak_bytes() -> int:
    """The largest that it has been."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def schema(number: int) -> dict[str, Any]:
    """A schema unlike all others."""
    integer = {"type": "integer", "minimum": 0, "maximum": 10 + number}
    return {"type": "object", "properties": {"day": integer}, "required": ["day"]}


def send(model: str, number: int) -> None:
    """One request; which kind is drawn by its number."""
    rng = random.Random(number)
    system = "Fill in the form." if rng.random() < 0.5 else f"Case {number}."
    user = f"Day {number}: {rng.choice(NAMES)}."
    options: dict[str, Any] = {"n": 2 if number % 10 == 0 else 1, "max_tokens": rng.randint(2, 6)}
    is_stream = number % 4 == 1 and options["n"] == 1
    if number % 2 == 0:
        wanted = {"type": "json_schema", "json_schema": {"schema": schema(number)}}
        options["response_format"] = wanted
        options["max_tokens"] = 24
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    answer = litellm.completion(
        model=model, messages=messages, stream=is_stream, temperature=1.0, **options
    )
    if is_stream:
        for position, _ in enumerate(answer):
            if number % 16 == 1 and position == 1:
                break  # the caller loses interest


def run(given: argparse.Namespace) -> dict[str, Any]:
    """All requests of one process, and what its memory did."""
    os.environ[ENV_PREFIX + "PREFIX_CACHE_BYTES"] = str(given.prefix_cache_mib * MIB)
    name = given.model.removeprefix("mlx/")
    litellm_mlx.load(name)
    engine = litellm_mlx.handler.registry.engine(name)
    for number in range(NUM_KEPT_SCHEMAS):
        engine.index(json_schema_constraint(schema(given.requests + number)))
    step = max((given.requests - given.warm_up) // NUM_READINGS, 1)
    ends = sorted({0, given.warm_up, *range(given.warm_up, given.requests, step), given.requests})
    readings = [(0, resident_bytes())]
    most_prefix_bytes = 0
    with ThreadPoolExecutor(given.threads) as pool:
        for start, end in itertools.pairwise(ends):
            list(pool.map(lambda number: send(f"mlx/{name}", number), range(start, end)))
            time.sleep(IDLE_S)
            readings.append((end, resident_bytes()))
            most_prefix_bytes = max(most_prefix_bytes, engine.stats().prefix_bytes)
            say(f"{end} requests: {readings[-1][1] / MIB:.0f} MiB", quiet=given.json)
    stats, loaded = engine.stats(), engine.model()
    at = dict(readings)
    before, after = at[given.warm_up], at[given.requests]
    result = heading("memory", loaded, given) | {
        "resident_mib": [[number, round(value / MIB, 1)] for number, value in readings],
        "growth": after / before - 1,
        "growth_mib": (after - before) / MIB,
        "peak_mib": peak_bytes() / MIB,
        "prefix_cache": {
            "budget_mib": given.prefix_cache_mib,
            "most_mib": most_prefix_bytes / MIB,
            "is_within": most_prefix_bytes <= given.prefix_cache_mib * MIB,
        },
        "live_kv_mib": stats.kv_bytes / MIB,
        "device_mib": device_mib(),
    }
    litellm_mlx.unload_all()
    return result


def device_mib() -> dict[str, float]:
    """MLX's own count of its memory."""
    import mlx.core as mx

    return {
        "active": mx.get_active_memory() / MIB,
        "cached": mx.get_cache_memory() / MIB,
        "peak": mx.get_peak_memory() / MIB,
    }


def in_children(given: argparse.Namespace) -> list[dict[str, Any]]:
    """The results of one fresh process per repeat: memory given back is not memory never taken."""
    command = [sys.executable, __file__, "--json", "--repeats", "1", "--child"]
    for name in ("model", "requests", "warm_up", "threads", "prefix_cache_mib"):
        command += [f"--{name.replace('_', '-')}", str(getattr(given, name))]
    results = []
    for repeat in range(given.repeats):
        shown = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        results.append(json.loads(shown.stdout.splitlines()[-1]))
        say(f"{repeat + 1}/{given.repeats} {results[-1]['growth']:+.2%}", quiet=given.json)
    return results


def summarise(results: list[dict[str, Any]]) -> dict[str, Any]:
    """One result of all repeats; lists and parts are those of the last one."""
    last = results[-1]
    spreads = {
        key: Spread.of([result[key] for result in results]).as_json(4 if key == "growth" else 1)
        for key in ("growth", "growth_mib", "peak_mib")
    }
    rounded = {
        key: {name: v if isinstance(v, bool) else round(v, 1) for name, v in last[key].items()}
        for key in ("prefix_cache", "device_mib")
    }
    live = {"live_kv_mib": round(last["live_kv_mib"], 1), "repeats": len(results)}
    return last | spreads | rounded | live


def show(result: dict[str, Any]) -> None:
    """The figures for a person."""
    print_table(("requests", "resident MiB"), result["resident_mib"])
    print(
        f"growth {Spread(**result['growth']):.2%}, peak {Spread(**result['peak_mib']):.0f} MiB, "
        f"prefix cache at most {result['prefix_cache']['most_mib']:.0f} of "
        f"{result['prefix_cache']['budget_mib']} MiB\n"
    )


def plot(result: dict[str, Any], path: Path) -> None:
    """Resident memory over the requests."""
    readings = [point for point in result["resident_mib"] if point[0] > 0]
    growth, count = result["growth"]["median"], result["options"]["requests"]
    lines(
        path,
        f"Over {count:,} requests memory changes by {growth:+.1%}",
        ("requests served", "resident memory, MiB"),
        [Line("", [(number, value) for number, value in readings], is_ours=True)],
    )


def main() -> None:
    """Measure, print the table, print the JSON line."""
    options = parser(__doc__)
    add_plot(options)
    add_count(options, "--requests", 2000, "of every process")
    add_count(options, "--warm-up", 200, "requests before memory is first read")
    add_count(options, "--threads", 8, "callers")
    add_count(options, "--prefix-cache-mib", 64, "budget of the prefix cache")
    options.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options.set_defaults(repeats=1)
    given = options.parse_args()
    if given.warm_up >= given.requests:
        options.error("--requests must be more than --warm-up")
    is_child = given.child
    del given.child
    if is_child:
        print(json.dumps(run(given)))
        return
    result = summarise(in_children(given))
    if not given.json:
        show(result)
    finish(result, given, plot)


if __name__ == "__main__":
    main()
