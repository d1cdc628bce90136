"""How many examples per minute does dspy.Evaluate get through with 1 thread and with 16?

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python benchmarks/dspy_eval.py
Prints: a table of examples per minute, and one JSON object as its last line.

Method. Stock DSPy: `dspy.LM("mlx/...")`, its default adapter, a chain of thought with one string
before the answer, and `dspy.Evaluate` over the same number of examples with every number of threads
in turn. DSPy's own cache is off, and every run asks about other numbers, so that only the
instructions can be in the prefix cache. The time is the caller's, around `Evaluate`. Ratios are
taken within a repeat. Answers that DSPy cannot parse would be asked again; they are counted.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dspy
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
from _engine import Work
from _plots import Bar, bars
from _tasks import NAMES, PLACES

import litellm_mlx

FRESH = itertools.count()  # makes every example of the process new


class Answer(dspy.Signature):
    """Answer the question from the text."""

    text: str = dspy.InputField()
    question: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="one or two words")


@dataclass(frozen=True, slots=True)
class Sample:
    """One evaluation."""

    examples_per_min: float
    tokens_per_example: float
    prefilled_per_example: float
    num_calls: int
    num_failed: int


def examples(count: int) -> list[dspy.Example]:
    """Examples that were never asked before."""
    made = []
    for number in itertools.islice(FRESH, count):
        name, place = NAMES[number % len(NAMES)], PLACES[number % len(PLACES)]
        text = f"{number + 1000} days ago {name} went to {place} by train and stayed for a week."
        question = f"Where did {name} go?"
        made.append(
            dspy.Example(text=text, question=question, answer=place).with_inputs("text", "question")
        )
    return made


def is_right(example: Any, prediction: Any, _trace: object = None) -> bool:
    """The answer names the place."""
    return str(example.answer) in str(prediction.answer)


def evaluate(model: str, num_threads: int, num_examples: int, max_tokens: int) -> Sample:
    """One run of dspy.Evaluate."""
    engine = litellm_mlx.handler.registry.engine(model)
    lm = dspy.LM(f"mlx/{model}", temperature=0, max_tokens=max_tokens, cache=False)
    before, start_s = engine.stats(), time.perf_counter()
    with dspy.context(lm=lm):
        evaluation = dspy.Evaluate(
            devset=examples(num_examples),
            metric=is_right,
            num_threads=num_threads,
            display_progress=False,
            max_errors=num_examples,
            failure_score=-1,
        )
        found = evaluation(dspy.ChainOfThought(Answer))
    took_s = time.perf_counter() - start_s
    work = Work.between(before, engine.stats())
    return Sample(
        examples_per_min=60 * num_examples / took_s,
        tokens_per_example=work.num_completion_tokens / num_examples,
        prefilled_per_example=work.num_prefilled_tokens / num_examples,
        num_calls=len(lm.history),
        num_failed=sum(score == -1 for _, _, score in found.results),
    )


def summarise(samples: dict[str, list[Sample]], threads: Sequence[int]) -> dict[str, Any]:
    """The figures of all repeats."""
    rates = {name: [run.examples_per_min for run in runs] for name, runs in samples.items()}
    least = str(threads[0])
    return {
        "examples_per_min": {name: Spread.of(values).as_json(1) for name, values in rates.items()},
        f"over {least} thread": {
            name: over(rates[name], rates[least]).as_json() for name in rates if name != least
        },
        "completion_tokens_per_example": {
            name: round(runs[-1].tokens_per_example, 1) for name, runs in samples.items()
        },
        "prefilled_tokens_per_example": {
            name: round(runs[-1].prefilled_per_example, 1) for name, runs in samples.items()
        },
        "calls": sum(run.num_calls for runs in samples.values() for run in runs),
        "failed_examples": sum(run.num_failed for runs in samples.values() for run in runs),
    }


def show(result: dict[str, Any]) -> None:
    """The figures for a person, as Markdown; each is median (min-max)."""
    print_table(
        ("threads", "examples/min", "tokens per example", "prefilled per example"),
        (
            (
                threads,
                f"{Spread(**rate):.1f}",
                result["completion_tokens_per_example"][threads],
                result["prefilled_tokens_per_example"][threads],
            )
            for threads, rate in result["examples_per_min"].items()
        ),
    )
    for name, figures in result.items():
        if name.startswith("over "):
            for threads, ratio in figures.items():
                print(f"{threads} threads {name}: {Spread(**ratio):.2f}")
    print(f"{result['calls']} calls, {result['failed_examples']} examples failed\n")


def plot(result: dict[str, Any], path: Path) -> None:
    """Examples per minute by threads."""
    rates = result["examples_per_min"]
    least, *_, most = rates
    gain = result[f"over {least} thread"][most]["median"]
    bars(
        path,
        f"{most} DSPy threads get through {gain:.1f} times the examples of {least}",
        [
            (
                "dspy.Evaluate, examples per minute",
                [
                    Bar(
                        f"{name} thread{'s' if name != '1' else ''}",
                        rate["median"],
                        is_ours=name != least,
                    )
                    for name, rate in rates.items()
                ],
            )
        ],
        "per minute",
    )


def main() -> None:
    """Measure, print the table, print the JSON line."""
    options = parser(__doc__)
    add_plot(options)
    options.add_argument("--threads", type=int, nargs="+", default=[1, 16])
    add_count(options, "--examples", 32, "per run")
    add_count(options, "--tokens", 48, "budget of every answer")
    options.set_defaults(repeats=3)
    given = options.parse_args()
    model = given.model.removeprefix("mlx/")
    logging.getLogger("dspy").setLevel(logging.ERROR)  # it reports every score
    litellm_mlx.load(model)
    say("warming up", quiet=given.json)
    for threads in given.threads:
        evaluate(model, threads, min(threads, given.examples), given.tokens)
    arms = {
        str(threads): partial(evaluate, model, threads, given.examples, given.tokens)
        for threads in given.threads
    }
    samples = take_turns(arms, given.repeats, quiet=given.json)
    loaded = litellm_mlx.handler.registry.engine(model).model()
    result = heading("dspy_eval", loaded, given) | summarise(samples, given.threads)
    litellm_mlx.unload_all()
    if not given.json:
        show(result)
    finish(result, given, plot)


if __name__ == "__main__":
    main()
