"""Five threads share one LM: their calls run in one batch on the engine's thread.

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/five_threads.py
Prints: one typed answer per thread.

DSPy lets one thread configure it; the workers take that configuration over with `dspy.context`.
"""

from concurrent.futures import ThreadPoolExecutor

import dspy

import litellm_mlx  # noqa: F401  # registers mlx/

QUESTIONS = [f"What is {n} plus {n}?" for n in range(1, 6)]


def main() -> list[int]:
    """Ask five questions at once and print the answers."""
    lm = dspy.LM("mlx/smollm2-135m", temperature=0)
    adapter = dspy.JSONAdapter()
    dspy.configure(lm=lm, adapter=adapter)

    def ask(question: str) -> int:
        with dspy.context(lm=lm, adapter=adapter):
            answer: int = dspy.Predict("question -> answer: int")(question=question).answer
            return answer

    with ThreadPoolExecutor(max_workers=5) as pool:
        answers = list(pool.map(ask, QUESTIONS))
    for question, answer in zip(QUESTIONS, answers, strict=True):
        print(f"{question} {answer}")
    return answers


if __name__ == "__main__":
    main()
