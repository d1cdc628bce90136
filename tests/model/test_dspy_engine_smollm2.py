"""DSPy's own engine contract on a real model: what it answers is what the LiteLLM door answers."""

from __future__ import annotations

from typing import Literal

import dspy
import pytest
from dspy import lm15
from pydantic import BaseModel

import litellm_mlx  # noqa: F401  # registers mlx/
from litellm_mlx.dspy import AsyncMLXEngine, MLXEngine

MODEL = "mlx/smollm2-135m"


class Person(BaseModel):
    name: str
    age: int
    mood: Literal["happy", "sad", "neutral"]


@pytest.mark.model
def test_both_doors_read_a_person_out_of_a_text() -> None:
    signature = dspy.Signature(
        {"text": (str, dspy.InputField()), "person": (Person, dspy.OutputField())}
    )
    engines = {"engine": MLXEngine(), "async_engine": AsyncMLXEngine()}
    found = []
    for lm in (dspy.LM(MODEL, temperature=0, cache=False, **engines), dspy.LM(MODEL, cache=False)):
        with dspy.context(lm=lm.copy(temperature=0), adapter=dspy.JSONAdapter()):
            found.append(dspy.Predict(signature)(text="Maria, 34, laughed all evening.").person)
    assert found == [Person(name="Maria", age=34, mood="happy")] * 2


@pytest.mark.model
def test_an_agent_calls_its_tool_without_an_adapter() -> None:
    asked: list[str] = []

    def population(city: str) -> str:
        """Look up how many people live in a city."""
        asked.append(city)
        return "0.7 million"

    lm = dspy.LM(MODEL, temperature=0, max_tokens=200, cache=False, engine=MLXEngine())
    agent = dspy.ReAct("question -> answer: str", tools=[population], max_iters=2)
    with dspy.context(lm=lm):
        result = agent(question="How many people live in Oslo?")
    assert result.trajectory["tool_name_0"] == "population" and asked
    assert {entry["response"].provider_data["tier"] for entry in lm.history} == {"grammar"}


@pytest.mark.model
def test_a_typed_request_of_a_real_model_streams() -> None:
    messages = (lm15.Message.user("What is the capital of France?"),)
    request = lm15.Request(
        MODEL, messages, system="Be brief.", config=lm15.Config(max_tokens=20, temperature=0.0)
    )
    engine = MLXEngine()
    streamed = lm15.materialize_response(engine.stream(request), request)
    assert streamed.text == engine.complete(request).text
    assert "Paris" in streamed.text
