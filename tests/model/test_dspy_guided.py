"""Stock DSPy where it sends json_object or nothing: ChatAdapter, ReAct and dicts, on SmolLM2 and
on random weights, without one parse failure and without one second call.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError
from pydantic import BaseModel

import litellm_mlx  # noqa: F401  # registers mlx/
from tests.signatures import CASES
from tests.sizes import IS_WHOLE
from tests.tiny_model import make_tiny_model

NUM_CALLS = 100 if IS_WHOLE else 30
NUM_STEPS = 50 if IS_WHOLE else 12
MODEL = "mlx/smollm2-135m"
NUM_THREADS = 16
MAX_ITERS = 3  # a random call fails in its tool, and DSPy adds the whole traceback to the prompt


class Stock(BaseModel):
    shop: str
    counts: dict[str, int]


DICTS: dict[str, tuple[Any, dict[str, str]]] = {
    "dict": ("text -> facts: dict", {"text": "Ann is 30. Bob is 20."}),
    "list of dict": ("text -> facts: list[dict]", {"text": "Ann is 30. Bob is 20."}),
    "dict of int": ("text -> ages: dict[str, int]", {"text": "Ann is 30. Bob is 20."}),
    "model with a dict": (
        dspy.Signature({"text": (str, dspy.InputField()), "stock": (Stock, dspy.OutputField())}),
        {"text": "Rossi sells 3 apples and 7 pears."},
    ),
}
TEXTS: dict[str, tuple[Any, dict[str, str]]] = {
    "text": ("question -> answer", {"question": "Where is Rome?"}),
    "text and number": ("question -> reasoning, answer: int", {"question": "What is 2 + 2?"}),
}


@pytest.fixture
def tiny_lm(tmp_path: Path) -> dspy.LM:
    context = {"max_position_embeddings": 16384}
    return dspy.LM(f"mlx/{make_tiny_model(tmp_path / 'm', config=context)}", cache=False)


@pytest.fixture(scope="module")
def smollm2() -> dspy.LM:
    return dspy.LM(MODEL, cache=False)


def predict_all(lm: dspy.LM, adapter: dspy.Adapter | None, max_tokens: int) -> list[dspy.LM]:
    """One call after another signature, each on a copy of the LM that keeps its own history."""
    cases = itertools.cycle({**CASES, **TEXTS, **DICTS}.values())

    def run(call: tuple[int, tuple[Any, dict[str, str]]]) -> dspy.LM:
        number, (signature, inputs) = call
        own = lm.copy(max_tokens=max_tokens)
        given = {name: f"{text} ({number})" for name, text in inputs.items()}
        with dspy.context(lm=own, adapter=adapter):
            dspy.Predict(signature)(**given)  # a parse failure raises
        return own

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return list(pool.map(run, enumerate(itertools.islice(cases, NUM_CALLS))))


def assert_no_second_call(lms: list[dspy.LM]) -> None:
    assert len(lms) == NUM_CALLS
    assert {len(lm.history) for lm in lms} == {1}


@pytest.mark.model
def test_chat_calls_on_smollm2(smollm2: dspy.LM) -> None:
    assert_no_second_call(predict_all(smollm2, None, 200))


def test_chat_calls_on_random_weights(tiny_lm: dspy.LM) -> None:
    assert_no_second_call(predict_all(tiny_lm, None, 500))


def test_xml_calls_on_random_weights_never_fail_where_the_prompt_is_exact(
    tiny_lm: dspy.LM,
) -> None:
    signature = "question -> reason, answer: Literal['yes', 'no'], n: int, sure: bool"
    for number in range(10):
        own = tiny_lm.copy(max_tokens=200)
        with dspy.context(lm=own, adapter=dspy.XMLAdapter()):
            dspy.Predict(signature)(question=f"Why? ({number})")
        assert len(own.history) == 1


def look_up(word: str) -> str:
    """Explain a word."""
    return f"{word} is a word."


def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


def react_steps(
    lm: dspy.LM, adapter: dspy.Adapter | None, max_tokens: int, at_least: int = NUM_STEPS
) -> list[Any]:
    """Trajectories of ReAct programs that together have at least so many steps.

    Each is checked for what a parse failure leaves behind: a missing step or one call more.
    """
    found: list[Any] = []

    def run(number: int) -> Any:
        own = lm.copy(max_tokens=max_tokens)
        with dspy.context(lm=own, adapter=adapter):
            program = dspy.ReAct("question -> answer", tools=[look_up, add], max_iters=MAX_ITERS)
            trajectory = program(question=f"What is {number} + 1?").trajectory
        num_steps = sum(name.startswith("tool_name_") for name in trajectory)
        has_ended = trajectory[f"tool_name_{num_steps - 1}"] == "finish"
        assert num_steps == MAX_ITERS or has_ended
        assert len(own.history) == num_steps + 1  # and one that extracts the answer
        return trajectory

    numbers = itertools.count()
    while sum(name.startswith("tool_name_") for t in found for name in t) < at_least:
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            found += pool.map(run, itertools.islice(numbers, at_least // MAX_ITERS + 1))
    return found


def assert_steps(trajectories: list[Any]) -> None:
    for trajectory in trajectories:
        for name, value in trajectory.items():
            if name.startswith("tool_name_"):
                assert value in ("look_up", "add", "finish")
            if name.startswith("tool_args_"):
                assert isinstance(value, dict)


@pytest.mark.model
@pytest.mark.parametrize(("adapter", "at_least"), [(None, NUM_STEPS), (dspy.JSONAdapter(), 4)])
def test_react_steps_on_smollm2(
    smollm2: dspy.LM, adapter: dspy.Adapter | None, at_least: int
) -> None:
    assert_steps(react_steps(smollm2, adapter, 80, at_least))


@pytest.mark.parametrize("adapter", [None, dspy.JSONAdapter()])
def test_react_steps_on_random_weights(tiny_lm: dspy.LM, adapter: dspy.Adapter | None) -> None:
    assert_steps(react_steps(tiny_lm, adapter, 150))


# A model of this size needs to be shown that an answer is wanted.
DEMOS: dict[str, Any] = {
    "dict": {"facts": {"Eve": 40}},
    "list of dict": {"facts": [{"name": "Eve", "age": 40}]},
    "dict of int": {"ages": {"Eve": 40}},
    "model with a dict": {"stock": Stock(shop="Bo", counts={"figs": 2})},
}


def filled(lm: dspy.LM, name: str, adapter: dspy.Adapter, tries: int) -> list[Any]:
    """Values of the dict fields, which DSPy's own schemas only let be `{}`."""
    signature, inputs = DICTS[name]
    found = []
    with dspy.context(lm=lm, adapter=adapter):
        for number in range(tries):
            demo = {"text": "Eve is 40. Bo sells 2 figs.", **DEMOS[name]}
            predict = dspy.Predict(signature)
            prediction = predict(
                **inputs, demos=[demo], config={"seed": number, "temperature": 1.0}
            )
            (value,) = dict(prediction.items()).values()
            found.append(value.counts if isinstance(value, Stock) else value)
    return [value for value in found if value not in ({}, [])]


@pytest.mark.model
@pytest.mark.parametrize("name", DICTS)
@pytest.mark.parametrize("adapter", [dspy.ChatAdapter(), dspy.JSONAdapter()])
def test_dicts_come_back_filled_on_smollm2(
    smollm2: dspy.LM, name: str, adapter: dspy.Adapter
) -> None:
    assert filled(smollm2.copy(max_tokens=150), name, adapter, 3)


@pytest.mark.parametrize("name", DICTS)
@pytest.mark.parametrize("adapter", [dspy.ChatAdapter(), dspy.JSONAdapter()])
def test_dicts_come_back_filled_on_random_weights(
    tiny_lm: dspy.LM, name: str, adapter: dspy.Adapter
) -> None:
    assert filled(tiny_lm.copy(max_tokens=400), name, adapter, 10)


@pytest.mark.parametrize("adapter", [dspy.ChatAdapter(), dspy.JSONAdapter(), dspy.XMLAdapter()])
def test_field_listeners_stream_from_a_guided_answer(
    tiny_lm: dspy.LM, adapter: dspy.Adapter
) -> None:
    listeners = [dspy.streaming.StreamListener(signature_field_name="answer")]
    program = dspy.streamify(
        dspy.Predict("question -> answer, sure: bool"), stream_listeners=listeners
    )

    async def chunks() -> list[Any]:
        with dspy.context(lm=tiny_lm.copy(max_tokens=200, seed=1), adapter=adapter):
            return [item async for item in program(question="Why?")]

    *streamed, last = asyncio.run(chunks())
    assert isinstance(last, dspy.Prediction)
    assert len(streamed) > 1
    begin = letters("".join(item.chunk for item in streamed))[:5]
    assert begin == letters(last.answer)[:5]


def letters(text: str) -> str:
    """ASCII letters alone: DSPy's listeners keep JSON's quotes, and its parsers change blanks."""
    return "".join(c for c in text if c.isascii() and c.isalpha())


def test_limits_of_output_fields_hold_on_random_weights(tiny_lm: dspy.LM) -> None:
    signature = dspy.Signature(
        {
            "question": (str, dspy.InputField()),
            "stars": (int, dspy.OutputField(ge=1, le=5)),
            "share": (float, dspy.OutputField(ge=0, le=1)),
        }
    )
    for adapter in (dspy.ChatAdapter(), dspy.JSONAdapter()):
        with dspy.context(lm=tiny_lm.copy(max_tokens=200), adapter=adapter):
            for number in range(5):
                found = dspy.Predict(signature)(question=f"How good? ({number})")
                assert 1 <= found.stars <= 5
                assert 0 <= found.share <= 1


def test_reasoning_outputs_work_on_a_plain_model(tiny_lm: dspy.LM) -> None:
    signature = dspy.Signature("question -> answer: int").prepend(
        "why", dspy.OutputField(), dspy.Reasoning
    )
    for adapter in (dspy.ChatAdapter(), dspy.JSONAdapter()):
        own = tiny_lm.copy(max_tokens=300)
        with dspy.context(lm=own, adapter=adapter):
            found = dspy.Predict(signature)(question="How many?")
        assert isinstance(found.why, dspy.Reasoning)
        assert isinstance(found.answer, int)
        assert len(own.history) == 1


def test_a_response_says_that_it_was_repaired_and_a_setting_turns_it_off(
    tiny_lm: dspy.LM, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    repairs = []
    for options in ({}, {"prompt_repair": False}):
        own = tiny_lm.copy(max_tokens=60, **options)
        with dspy.context(lm=own, adapter=dspy.ChatAdapter(use_json_adapter_fallback=False)):
            try:
                dspy.Predict("question -> sure: bool")(question="Is it?")
            except AdapterParseError:
                assert options
        message = own.history[-1]["response"].choices[0].message
        repairs.append((message.provider_specific_fields or {}).get("repairs"))
    assert repairs[0] == ["chat fields"]
    assert not repairs[1]


def test_a_budget_too_small_for_a_repaired_format_leaves_the_request_as_sent(
    tiny_lm: dspy.LM,
) -> None:
    own = tiny_lm.copy(max_tokens=5)
    adapter = dspy.ChatAdapter(use_json_adapter_fallback=False)
    with dspy.context(lm=own, adapter=adapter), pytest.raises(AdapterParseError):
        dspy.Predict("question -> sure: bool")(question="Is it?")
    (choice,) = own.history[0]["response"].choices
    assert choice.finish_reason == "length"
    assert not (choice.message.provider_specific_fields or {}).get("repairs")
