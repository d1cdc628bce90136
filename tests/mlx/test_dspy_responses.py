"""Stock DSPy by LiteLLM's Responses API, which sends each text as a list of one part."""

from __future__ import annotations

from typing import Any, Literal

import dspy
import pytest

from litellm_mlx.translate.dspy_format import repaired_format

ADAPTERS: list[dspy.Adapter] = [
    dspy.ChatAdapter(use_json_adapter_fallback=False),
    dspy.JSONAdapter(),
    dspy.XMLAdapter(),
]


class Judge(dspy.Signature):
    """Judge a film."""

    film: str = dspy.InputField()
    verdict: Literal["good", "bad"] = dspy.OutputField()
    stars: int = dspy.OutputField(ge=0, le=9)


class Count(dspy.Signature):
    """Count the words of a text."""

    text: str = dspy.InputField()
    counts: dict[str, int] = dspy.OutputField()
    done: bool = dspy.OutputField()


@pytest.fixture
def lm(tiny: str) -> dspy.LM:
    return dspy.LM(
        tiny, model_type="responses", cache=False, num_retries=0, max_tokens=400, temperature=1.0
    )


def name_of(adapter: dspy.Adapter) -> str:
    return type(adapter).__name__


@pytest.mark.parametrize("adapter", ADAPTERS, ids=name_of)
def test_each_answer_is_parsed_at_the_first_try(lm: dspy.LM, adapter: dspy.Adapter) -> None:
    with dspy.context(lm=lm, adapter=adapter):
        for seed in range(3):
            judged = dspy.Predict(Judge)(film="Alien", config={"seed": seed})
            assert judged.verdict in ("good", "bad")
            assert 0 <= judged.stars <= 9
    assert len(lm.history) == 3


@pytest.mark.parametrize("adapter", ADAPTERS[:2], ids=name_of)
def test_what_dspy_sends_no_schema_for_is_read_from_its_prompt(
    lm: dspy.LM, adapter: dspy.Adapter
) -> None:
    with dspy.context(lm=lm, adapter=adapter):
        counted = dspy.Predict(Count)(text="a b a")
    assert all(isinstance(count, int) for count in counted.counts.values())
    assert len(lm.history) == 1


@pytest.mark.parametrize("adapter", ADAPTERS, ids=name_of)
def test_a_list_of_one_text_is_read_as_the_text(adapter: dspy.Adapter) -> None:
    messages = adapter.format(Judge, [], {"film": "x"})
    any_object = {"type": "json_object"} if isinstance(adapter, dspy.JSONAdapter) else None

    def read(content: Any) -> Any:
        return repaired_format([{**messages[0], "content": content}, *messages[1:]], any_object)

    text = {"type": "text", "text": messages[0]["content"]}
    assert read([text]) is not None
    assert read([text]) == read(text["text"])
    assert read([text, text]) is None
    assert read([{"type": "text", "text": "Be kind."}, text]) is None
