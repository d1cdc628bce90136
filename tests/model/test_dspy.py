"""Stock DSPy with a stock JSONAdapter: calls on the real model and on random weights."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError

import litellm_mlx  # noqa: F401  # registers mlx/
from tests.signatures import CASES
from tests.sizes import IS_WHOLE
from tests.tiny_model import make_tiny_model

NUM_CALLS = 100 if IS_WHOLE else 2 * len(CASES)
MODEL = "mlx/smollm2-135m"


def calls() -> list[tuple[str, Any, dict[str, str]]]:
    """The signatures in turn, each time with another input."""
    turns = enumerate(itertools.islice(itertools.cycle(CASES.items()), NUM_CALLS))
    return [
        (name, signature, {key: f"{text} ({i})" for key, text in inputs.items()})
        for i, (name, (signature, inputs)) in turns
    ]


def predict(lm: dspy.LM, signature: Any, inputs: dict[str, str]) -> Any:
    with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
        return dspy.Predict(signature)(**inputs)


def values(prediction: Any) -> dict[str, Any]:
    return dict(prediction.items())


@pytest.mark.model
def test_calls_on_smollm2_all_parse_at_the_first_try() -> None:
    lm = dspy.LM(MODEL, cache=False, max_tokens=1000)
    with ThreadPoolExecutor(16) as pool:
        done = list(pool.map(lambda call: predict(lm, call[1], call[2]), calls()))
    assert len(done) == NUM_CALLS  # an AdapterParseError would have been raised
    assert len(lm.history) == NUM_CALLS  # a retry would stand here too
    assert {e["response"].choices[0].finish_reason for e in lm.history} == {"stop"}


def test_what_finishes_on_random_weights_is_valid_and_the_rest_is_marked(tmp_path: Path) -> None:
    context = {"max_position_embeddings": 16384}
    lm = dspy.LM(f"mlx/{make_tiny_model(tmp_path / 'm', config=context)}", cache=False)
    num_finished = 0

    def run(call: tuple[str, Any, dict[str, str]]) -> str:
        own = lm.copy(max_tokens=400)
        try:
            predict(own, call[1], call[2])
            parsed = True
        except AdapterParseError:
            parsed = False
        (entry,) = own.history
        reason = entry["response"].choices[0].finish_reason
        assert parsed or reason == "length", (call[0], entry["outputs"])
        return str(reason)

    with ThreadPoolExecutor(16) as pool:
        reasons = list(pool.map(run, calls()))
    num_finished = reasons.count("stop")
    assert set(reasons) <= {"stop", "length"}
    assert num_finished >= NUM_CALLS // 2, reasons  # or the test would say little
    print(f"finished {num_finished} of {NUM_CALLS}")


@pytest.mark.model
def test_parallel_greedy_calls_match_one_by_one_runs() -> None:
    lm = dspy.LM(MODEL, cache=False, temperature=0, max_tokens=300)
    dspy.configure(lm=lm, adapter=dspy.JSONAdapter())
    # no free string: a greedy model of this size may repeat itself in one to the token limit
    signature = "question -> number: int, sure: bool, size: Literal['small', 'large'], share: float"
    predictor = dspy.Predict(signature)
    questions = [f"What is {n} times {n + 1}?" for n in range(8)]
    alone = [values(predictor(question=q)) for q in questions]
    examples = [(predictor, dspy.Example(question=q).with_inputs("question")) for q in questions]
    together = dspy.Parallel(num_threads=16, disable_progress_bar=True)(examples * 4)
    assert [values(p) for p in together] == alone * 4

    def ask(question: str) -> dict[str, Any]:
        with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
            return values(dspy.Predict(predictor.signature)(question=question))

    with ThreadPoolExecutor(16) as pool:
        threads = list(pool.map(ask, questions * 4))
    assert threads == alone * 4
