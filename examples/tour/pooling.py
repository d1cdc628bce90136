"""Pooling: many deployments and threads share one copy of the weights, and one batch.

Idea:   of the early designs, pools of workers, each with a copy of the model, behind locks.
Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/tour/pooling.py
Prints: who answered, what is in memory, and how many tokens each forward pass gave.

No pool is needed here: requests from any thread join the model's batch between two steps. Several
deployments make sense where they differ, as in their limits or in an adapter (?adapter=DIR).
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import litellm

import litellm_mlx

MODEL = "smollm2-135m"
NUM_DEPLOYMENTS, NUM_THREADS, NUM_QUESTIONS = 3, 8, 16


def worker(number: int) -> dict[str, Any]:
    """One deployment of the pool."""
    params = {"model": f"mlx/{MODEL}", "temperature": 0, "max_tokens": 24}
    return {"model_name": "pool", "litellm_params": params, "model_info": {"id": f"w{number}"}}


def main() -> None:
    """Ask from many threads, then look at what the engine did."""
    router = litellm.Router(model_list=[worker(number) for number in range(NUM_DEPLOYMENTS)])

    def ask(number: int) -> Any:
        question = f"What is {number} plus {number}?"
        return router.completion("pool", [{"role": "user", "content": question}])

    with ThreadPoolExecutor(NUM_THREADS) as threads:
        answers = list(threads.map(ask, range(NUM_QUESTIONS)))
    who = sorted({answer._hidden_params["model_id"] for answer in answers})
    print(f"{len(answers)} answers from {NUM_THREADS} threads, by {', '.join(who)}")
    registry = litellm_mlx.handler.registry
    models = registry.models()
    weights_mb = sum(model.weights_bytes for model in models) / 1e6
    print(f"{len(models)} model in memory, {weights_mb:.0f} MB of weights")
    stats = registry.engine(MODEL).stats()
    num_tokens, num_passes = stats.num_completion_tokens, stats.num_passes
    print(f"{num_tokens} tokens in {num_passes} passes: {num_tokens / num_passes:.1f} per pass")


if __name__ == "__main__":
    main()
