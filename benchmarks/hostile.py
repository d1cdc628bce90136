"""Does a hostile request slow the others down?

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python benchmarks/hostile.py
Prints: a table of hostile inputs, and one JSON object as its last line.

Method. One stream of free text runs through `litellm.completion`; while it runs, another thread
sends one hostile request, which is served or refused. The stream's token rate, first token to
last, is divided by the mean of two undisturbed streams: the one just before and the one just
after, which is also the one before the next input. The longest gap between two tokens is given
beside the longest of the undisturbed ones. Every repeat sends an input that no cache has seen.
`ordinary` is no attack: a plain schema, which costs the stream what any second request does that
is decoded beside it; what is served cannot cost less.
"""

from __future__ import annotations

import argparse
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import litellm
from _common import Spread, add_count, machine, parser, say, versions

import litellm_mlx

PROMPT = "The following is a long numbered list of facts about the sea.\n\n1."
WARM_UP_TOKENS = 16
ANSWER_TOKENS = 24  # room for each input's shortest answer
FRESH = itertools.count()  # makes every input new to the caches


def schema(body: dict[str, Any]) -> dict[str, Any]:
    """A request's parameters for a schema that was never seen before."""
    name = f"field{next(FRESH)}"
    whole = {"type": "object", "properties": {name: body}, "required": [name]}
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": whole}}}


def pattern(text: str) -> Callable[[], dict[str, Any]]:
    """A schema with one pattern."""
    return lambda: schema({"type": "string", "pattern": text})


def nested(depth: int) -> dict[str, Any]:
    """Objects inside each other."""
    body: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        body = {"type": "object", "properties": {"a": body}, "required": ["a"]}
    return body


def megabyte() -> dict[str, Any]:
    """A schema of nearly one megabyte of properties."""
    properties = {f"property_{i:06}": {"type": "string", "maxLength": i + 1} for i in range(16_000)}
    return {"type": "object", "properties": properties}


HOSTILE: dict[str, Callable[[], dict[str, Any]]] = {
    "ordinary": lambda: schema({"type": "string", "maxLength": 60}),
    "regex: nested repeats": pattern("^(([a-z])+.)+[A-Z]([a-z])+$"),
    "regex: counted repeats": pattern("^((a{0,100}){0,100}){0,100}$"),
    "regex: look-ahead in the check": pattern("^(?=(a+)+b)(a|b|ab)*$"),
    "regex: alternatives": pattern("^(a|a|b|aa|ab|ba)*(.*a.*b.*c.*){9}$"),
    "guided_regex": lambda: {"guided_regex": f"(x{next(FRESH)}|((a{{1,99}}b?){{1,99}}c){{1,99}})"},
    "enum of 10,000": lambda: schema({"enum": [f"value {i} {i * 7919}" for i in range(10_000)]}),
    "200 levels": lambda: schema(nested(200)),
    "1 MB": lambda: schema(megabyte()),
    "minItems 10^9": lambda: schema({"type": "array", "items": {}, "minItems": 10**9}),
    "remote $ref": lambda: schema({"$ref": "https://example.com/schema.json"}),
    "uniqueItems of objects": lambda: schema(
        {"type": "array", "uniqueItems": True, "minItems": 100, "items": {"type": "integer"}}
    ),
    "anyOf of 2,000 objects": lambda: schema(
        {"anyOf": [{"type": "object", "properties": {f"p{i}": nested(3)}} for i in range(2000)]}
    ),
}


@dataclass(frozen=True, slots=True)
class Stream:
    """Token arrivals of one stream."""

    times_s: list[float]

    @property
    def tokens_per_s(self) -> float:
        """From the first token to the last."""
        return (len(self.times_s) - 1) / (self.times_s[-1] - self.times_s[0])

    @property
    def longest_gap_ms(self) -> float:
        """Between two tokens."""
        return 1e3 * max(b - a for a, b in itertools.pairwise(self.times_s))


@dataclass(slots=True)
class Attack:
    """One hostile request and what became of it."""

    options: dict[str, Any]
    outcome: str = ""
    took_s: float = 0.0

    def run(self, model: str) -> None:
        """Send it; blocks until it is served or refused."""
        start = time.monotonic()
        try:
            litellm.completion(
                model=model,
                messages=[{"role": "user", "content": "hi"}],
                max_tokens=ANSWER_TOKENS,
                timeout=30,
                **self.options,
            )
            self.outcome = "served"
        except Exception as error:  # the kind of error is what is reported
            self.outcome = type(error).__name__
        self.took_s = time.monotonic() - start


def arrivals(model: str, num_tokens: int) -> Iterator[float]:
    """When each chunk of a greedy completion came."""
    for chunk in litellm.text_completion(
        model=model, prompt=PROMPT, max_tokens=num_tokens, temperature=0, stream=True
    ):
        if chunk.choices[0].text:
            yield time.monotonic()


def undisturbed(model: str, num_tokens: int) -> Stream:
    """A stream that has the machine for itself."""
    return Stream(list(arrivals(model, num_tokens)))


def disturbed(model: str, num_tokens: int, attack: Attack) -> Stream:
    """A stream during which the attack runs."""
    thread = threading.Thread(target=attack.run, args=(model,))
    times = []
    for index, arrival in enumerate(arrivals(model, num_tokens)):
        times.append(arrival)
        if index == num_tokens // 8:
            thread.start()
    thread.join()
    return Stream(times)


def measure(
    model: str, num_tokens: int, make: Callable[[], dict[str, Any]], before: Stream
) -> tuple[dict[str, Any], Stream]:
    """One attack between two undisturbed streams; its figures, and the second of the streams."""
    attack = Attack(make())
    under = disturbed(model, num_tokens, attack)
    after = undisturbed(model, num_tokens)
    figures = {
        "outcome": attack.outcome,
        "took_s": attack.took_s,
        "ratio": under.tokens_per_s / ((before.tokens_per_s + after.tokens_per_s) / 2),
        "gap_ms": under.longest_gap_ms,
        "usual_gap_ms": max(before.longest_gap_ms, after.longest_gap_ms),
    }
    return figures, after


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The repeats of one attack."""
    figures = ("took_s", "ratio", "gap_ms", "usual_gap_ms")
    return {"outcome": sorted({run["outcome"] for run in runs})} | {
        name: Spread.of([run[name] for run in runs]).as_json() for name in figures
    }


def print_table(results: dict[str, dict[str, Any]]) -> None:
    """Medians for a person, as Markdown."""
    print("| input | outcome | took s | rate of the other stream | longest gap ms | usual |")
    print("|---|---|---|---|---|---|")
    for name, found in results.items():
        row = [name, ", ".join(found["outcome"]), f"{found['took_s']['median']:.2f}"]
        row += [f"{found['ratio']['median']:.3f} ({found['ratio']['min']:.3f})"]
        row += [f"{found[key]['median']:.0f}" for key in ("gap_ms", "usual_gap_ms")]
        print("| " + " | ".join(row) + " |")


def main() -> None:
    """Measure, print the table, print the JSON line."""
    options: argparse.ArgumentParser = parser(__doc__)
    add_count(options, "--tokens", 240, "length of the stream")
    options.add_argument("--only", nargs="+", choices=HOSTILE, help="these inputs only")
    given = options.parse_args()
    name = given.model.removeprefix("mlx/")
    model = f"mlx/{name}"
    litellm_mlx.load(name)
    undisturbed(model, WARM_UP_TOKENS)
    results = {}
    latest = undisturbed(model, given.tokens)
    for kind in given.only or HOSTILE:
        runs = []
        for _ in range(given.repeats):
            figures, latest = measure(model, given.tokens, HOSTILE[kind], latest)
            runs.append(figures)
        results[kind] = summary(runs)
        say(f"{kind}: {results[kind]['ratio']} {results[kind]['outcome']}", quiet=given.json)
    if not given.json:
        print_table(results)
    loaded = litellm_mlx.handler.registry.engine(name).model()
    print(
        json.dumps(
            {
                "benchmark": "hostile",
                "versions": versions(),
                "machine": machine(loaded.hardware),
                "model": name,
                "tokens": given.tokens,
                "repeats": given.repeats,
                "inputs": results,
                "lowest_ratio": min(found["ratio"]["median"] for found in results.values()),
            }
        )
    )


if __name__ == "__main__":
    main()
