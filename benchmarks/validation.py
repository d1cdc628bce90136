"""What does it cost to validate every answer against its own schema before it leaves?

Run:    python benchmarks/validation.py --data FILE.jsonl [--limit N]
Prints: a table, and one JSON object as its last line.

Data: as `maskbench.py` has it. No model is needed.

Method. The check is the one of a request: that of the compiled index, or of a tool plan. Each valid
instance, written as json.dumps writes it, is checked `--repeats` times after one warm-up, and its
median counts; the table has the spread over the instances. An answer is ordinary up to 2,000
characters, which is some 500 tokens. `prepare` is what a new schema costs once, while the engine
takes in the prompt. `off the loop` are texts that an event loop hands to a thread, or that another
process validates. The last rows are one answer each of the other kinds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _common import Spread, percentile, print_table, versions

sys.path.insert(0, str(Path(__file__).parents[1]))  # the families are the tests' own

from litellm_mlx.errors import LiteLLMMLXError
from litellm_mlx.grammar.check import Check
from litellm_mlx.grammar.compiler import compile_constraint
from litellm_mlx.grammar.constraint import (
    choice_constraint,
    grammar_constraint,
    json_schema_constraint,
    regex_constraint,
)
from litellm_mlx.grammar.vocabulary import byte_vocabulary
from litellm_mlx.translate.params import parse_params
from litellm_mlx.translate.tools import plan_tools
from tests.tool_families import FAMILIES

ORDINARY_CHARACTERS = 2_000
AIM_MS = 0.2


def check_ms(check: Check, text: str, repeats: int) -> float:
    """Median time of a check that has run once."""
    said = check(text)
    assert said is None, f"a valid text is called invalid: {said}"
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        check(text)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e3


def prepared(check: Check) -> tuple[Check, float]:
    """A check, and what it took to prepare it."""
    start = time.perf_counter()
    check.prepare()
    return check, (time.perf_counter() - start) * 1e3


def json_checks(path: Path, limit: int | None) -> Iterator[tuple[Check, float, list[str]]]:
    """The checks of a file's schemas and their valid instances as texts."""
    lines = path.read_text(encoding="utf-8").splitlines()[:limit]
    for line in map(json.loads, lines):
        try:
            index = compile_constraint(json_schema_constraint(line["schema"]), byte_vocabulary())
        except LiteLLMMLXError:
            continue
        data = [test["data"] for test in line["tests"] if test["valid"]]
        yield *prepared(index.check), [json.dumps(value, ensure_ascii=False) for value in data]


def other_kinds() -> Iterator[tuple[str, Check, str]]:
    """One answer of each kind that is no JSON schema alone."""
    brackets = "start: sum\nsum: term (/[+*]/ term)*\nterm: /[0-9]+/ | " + '"(" sum ")"\n'
    for name, constraint, text in (
        ("choice", choice_constraint(["positive", "negative", "neutral"]), "neutral"),
        ("regex", regex_constraint(r"([A-Z]{3}-\d{4}[,.])+"), "ABC-1234," * 40),
        ("grammar", grammar_constraint(brackets), "+".join(["(12*3)"] * 60)),
    ):
        yield name, compile_constraint(constraint, byte_vocabulary()).check, text
    place = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"maximum": 9}}}
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": place}}
    params = parse_params({"tools": [tool]}, drops_unsupported=False)
    for family in FAMILIES:
        if family.name in ("hermes", "glm"):
            plan = plan_tools(params, None, family.form)
            assert plan is not None
            call = family.form.call_text(plan.tools[0], {"city": "Oslo", "days": 3})
            text = "I will look at the weather there. " * 20 + family.form.opens + call
            yield f"text and a call, {family.name}", plan.check, text + family.form.closes


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, required=True, help="schemas, one a line")
    options.add_argument("--limit", type=int, help="only the first N schemas")
    options.add_argument("--repeats", type=int, default=20, help="of each check (20)")
    options.add_argument("--json", action="store_true", help="print the JSON line only")
    given = options.parse_args()
    prepare, ordinary, longer, num_off = [], [], [], 0
    for check, took_ms, texts in json_checks(given.data, given.limit):
        prepare.append(took_ms)
        for text in texts:
            if not check.is_quick(text):
                num_off += 1
                continue
            is_ordinary = len(text) <= ORDINARY_CHARACTERS
            (ordinary if is_ordinary else longer).append(check_ms(check, text, given.repeats))
    found = {"prepare, a new schema": prepare, "an ordinary answer": ordinary}
    found["a longer one, on the loop"] = longer
    for name, check, text in other_kinds():
        check.prepare()
        found[name] = [check_ms(check, text, given.repeats)]
    if not given.json:
        rows = [
            (name, len(times), f"{Spread.of(times):.3f}", f"{percentile(times, 0.99):.3f}")
            for name, times in found.items()
        ]
        print_table(("what", "number", "median (min-max), ms", "p99, ms"), rows)
    figures: dict[str, Any] = {
        name: {**Spread.of(times).as_json(), "p99": round(percentile(times, 0.99), 3)}
        for name, times in found.items()
    }
    over = sum(took_ms > AIM_MS for took_ms in ordinary)
    print(
        json.dumps(
            {
                "benchmark": "validation",
                "versions": versions(),
                "repeats": given.repeats,
                "ms": figures,
                "ordinary": len(ordinary),
                "ordinary_over_aim": over,
                "off_the_loop": num_off,
            }
        )
    )


if __name__ == "__main__":
    main()
