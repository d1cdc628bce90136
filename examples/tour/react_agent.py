"""A ReAct agent with two tools, and what it costs over one plain call to the same model.

Idea:   of the early designs, which measured an agent at +237% of a plain call's latency.
Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/tour/react_agent.py
Prints: a trajectory; medians per question of seconds, calls, tokens and passes; their ratio.

An agent asks the model once per step and once for the answer, each time with a longer prompt. Two
steps are what a larger model takes here, a tool and "finish"; this one never says finish.
"""

import statistics
import time

import dspy

import litellm_mlx

CITIES = {"Paris": 2_100_000, "Oslo": 700_000, "Rome": 2_800_000, "Bern": 130_000}


def population(city: str) -> str:
    """Look up how many people live in a city."""
    return str(CITIES.get(city, "unknown"))


def ratio(larger: float, smaller: float) -> str:
    """Divide two numbers."""
    return f"{larger / smaller:.2f}"


def measure(program: dspy.Module, question: str) -> tuple[float, int, int, int]:
    """Seconds, calls of the model, completion tokens and decode passes of one question."""
    engine, history = litellm_mlx.handler.registry.engine("smollm2-135m"), dspy.settings.lm.history
    passes, calls, start_s = engine.stats().num_passes, len(history), time.perf_counter()
    program(question=question)
    took_s, new = time.perf_counter() - start_s, [call["usage"] for call in history[calls:]]
    tokens = sum(usage["completion_tokens"] for usage in new)
    return took_s, len(new), tokens, engine.stats().num_passes - passes


def main() -> None:
    """Run both once, then measure them by turns."""
    lm = dspy.LM("mlx/smollm2-135m", temperature=0, max_tokens=200, cache=False)
    dspy.configure(lm=lm, adapter=dspy.JSONAdapter())
    plain = dspy.Predict("question -> answer: str")
    agent = dspy.ReAct("question -> answer: str", tools=[population, ratio], max_iters=2)
    first, *others = [f"How many people live in {city}?" for city in CITIES]
    plain(question=first)
    print(*agent(question=first).trajectory.items(), sep="\n")
    runs = [(measure(plain, question), measure(agent, question)) for question in others]
    for name, found in zip(("plain", "agent"), zip(*runs, strict=True), strict=True):
        seconds, calls, tokens, passes = map(statistics.median, zip(*found, strict=True))
        print(f"{name}: {seconds:.2f} s, {calls} calls, {tokens} tokens, {passes} passes")
    over = sorted(one_agent[0] / one_plain[0] - 1 for one_plain, one_agent in runs)
    print(f"agent over plain: {statistics.median(over):+.0%} ({over[0]:+.0%} to {over[-1]:+.0%})")


if __name__ == "__main__":
    main()
