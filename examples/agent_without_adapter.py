"""Stock DSPy with no adapter configured: ReAct and a dict come back in form from a tiny model.

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/agent_without_adapter.py
Prints: the steps of an agent, and a dict with values.

DSPy sends no schema here: ChatAdapter sends nothing at all. The package reads what each field must
be from DSPy's own system message; `prompt_repair=False` switches that off.
"""

import dspy

import litellm_mlx  # noqa: F401  # registers mlx/


def population(city: str) -> str:
    """Look up how many people live in a city."""
    return {"Paris": "2.1 million", "Oslo": "0.7 million"}.get(city, "unknown")


class Ages(dspy.Signature):
    """Give the age of each person in the text."""

    text: str = dspy.InputField()
    ages: dict[str, int] = dspy.OutputField(desc="name and age")


def main() -> None:
    """Run an agent for two steps, then fill a dict."""
    dspy.configure(lm=dspy.LM("mlx/smollm2-135m", temperature=0, max_tokens=200, cache=False))
    agent = dspy.ReAct("question -> answer: str", tools=[population], max_iters=2)
    result = agent(question="How many people live in Oslo?")
    for name, value in result.trajectory.items():
        print(f"{name}: {value}")
    print("ages:", dspy.Predict(Ages)(text="Ann is 31 and Bob is 27.").ages)


if __name__ == "__main__":
    main()
