"""Pipelines: steps at once, a step that depends on another's answer, and a step that may fail.

Idea:   of the early designs, pipelines with parallel and conditional steps and `continue_on_error`.
Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/tour/pipelines.py
Prints: what each step gave, the errors of those that failed, and the branch that was taken.

A pipeline is a dspy.Module: Python has the conditions, `dspy.Parallel` the threads and the errors.
"""

import dspy

import litellm_mlx  # noqa: F401  # registers mlx/

LETTER = "The lamp that I bought from you on Monday has broken. I want my money back."


class Mailroom(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kind = dspy.Predict("letter -> kind: Literal['complaint', 'question']")
        self.subject = dspy.Predict("letter -> subject: str")
        self.broken = dspy.Predict("letter -> language: str")
        self.broken.set_lm(dspy.LM("mlx//no/such/model"))  # as one that was deleted
        self.apologise = dspy.Predict("letter -> apology: str")
        self.answer = dspy.Predict("letter -> answer: str")

    def forward(self, letter: str) -> dspy.Prediction:
        """Read a letter three ways at once; reply by its kind, whatever else has failed."""
        steps = [self.kind, self.subject, self.broken]
        parallel = dspy.Parallel(
            num_threads=len(steps),
            max_errors=len(steps) + 1,  # go on
            return_failed_examples=True,
            disable_progress_bar=True,
        )
        results, _, errors = parallel([(step, {"letter": letter}) for step in steps])
        found = {name: value for result in results if result for name, value in result.items()}
        is_complaint = found.get("kind") == "complaint"
        reply = (self.apologise if is_complaint else self.answer)(letter=letter)
        return dspy.Prediction(**found, **reply, errors=[type(error).__name__ for error in errors])


def main() -> None:
    """Run the pipeline on one letter."""
    lm = dspy.LM("mlx/smollm2-135m", temperature=0, max_tokens=80, cache=False)
    dspy.configure(lm=lm, adapter=dspy.JSONAdapter())
    for name, value in Mailroom()(letter=LETTER).items():
        print(f"{name}: {value!r}")


if __name__ == "__main__":
    main()
