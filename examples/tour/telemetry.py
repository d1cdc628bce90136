"""Telemetry: a function of yours after every request, Prometheus figures, and DSPy's own usage.

Idea:   of the early designs, events of routing, execution, cache and errors for who listens.
Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/tour/telemetry.py
Prints: how each request went, the tokens that DSPy counted, and what Prometheus would read.

Names and numbers, never a word of a prompt. `litellm-mlx serve` has the same under /mlx/metrics.
"""

import contextlib

import dspy
import litellm
from prometheus_client import generate_latest

from litellm_mlx import metrics, observe

MODEL = "mlx/smollm2-135m"


def show(outcome: observe.Outcome) -> None:
    """One line of a request that has ended."""
    if isinstance(outcome, observe.Failed):
        print(f"failed: {outcome.model} {outcome.error} {outcome.http_status}")
        return
    usage, timings = outcome.done.usage, outcome.done.timings
    print(
        f"answered: {outcome.model} {outcome.tier or 'free'}, "
        f"{usage.prompt_tokens} prompt tokens ({usage.cached_tokens} cached), "
        f"{usage.completion_tokens} completion tokens ({outcome.done.num_forced_tokens} forced), "
        f"prefill {timings.prefill_s:.3f} s, decode {timings.decode_s:.3f} s"
    )


def main() -> None:
    """Two answers and an error, then the figures."""
    metrics.install()
    observe.add_observer(show)
    dspy.configure(lm=dspy.LM(MODEL, temperature=0, cache=False), adapter=dspy.JSONAdapter())
    judge = dspy.Predict("review -> mood: Literal['good', 'bad']")
    with dspy.track_usage() as tracker:
        for review in ("I loved it.", "I slept through it."):
            judge(review=review)
    with contextlib.suppress(litellm.NotFoundError):
        litellm.completion("mlx//no/such/model", [{"role": "user", "content": "Hi"}])
    for name, usage in tracker.get_total_tokens().items():
        print(f"DSPy: {name} {usage['prompt_tokens']} + {usage['completion_tokens']} tokens")
    for line in generate_latest().decode().splitlines():
        if line.startswith("litellm_mlx_") and "_total{" in line:
            print(line)


if __name__ == "__main__":
    main()
