"""LiteLLM's `fallbacks`: a call that fails on one model is answered by the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import dspy
import litellm
import pytest

from litellm_mlx.translate.params import LEAKED

USER = [{"role": "user", "content": "hello"}]
MISSING = "mlx/no-such-model"
OPTIONS: dict[str, Any] = {"max_tokens": 8, "temperature": 0.5}


def completion(**options: Any) -> str:
    return litellm.completion(messages=USER, **OPTIONS, **options).choices[0].message.content


def acompletion(**options: Any) -> str:
    call = litellm.acompletion(messages=USER, **OPTIONS, **options)
    return asyncio.run(call).choices[0].message.content


def text_completion(**options: Any) -> str:
    return litellm.text_completion(prompt="hello", **OPTIONS, **options).choices[0].text


def responses(**options: Any) -> str:
    return (
        litellm.responses(input="hello", max_output_tokens=8, **options).output[0].content[0].text
    )


def stream(**options: Any) -> str:
    chunks = litellm.completion(messages=USER, stream=True, **OPTIONS, **options)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def dspys(**options: Any) -> str:
    lm = dspy.LM(cache=False, num_retries=0, **OPTIONS, **options)
    return lm("hello")[0]


@pytest.mark.parametrize(
    "call", [completion, acompletion, text_completion, responses, dspys], ids=lambda f: f.__name__
)
def test_the_next_model_answers(tiny: str, call: Callable[..., str]) -> None:
    assert call(model=MISSING, fallbacks=[tiny])
    assert call(model=tiny, fallbacks=[MISSING])
    assert call(model=tiny, fallbacks=[{"model": MISSING}])


def test_a_constraint_holds_for_the_model_that_answers(tiny: str) -> None:
    asked = {"guided_regex": "[ab]{3}c"}
    assert completion(model=MISSING, fallbacks=[tiny], **asked)[3:] == "c"


@pytest.mark.parametrize("call", [completion, stream], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", sorted(LEAKED))
def test_a_name_that_litellm_leaks_changes_nothing(
    tiny: str, call: Callable[..., str], name: str
) -> None:
    """LiteLLM 1.108 sends it with each call that has `fallbacks`, on whichever release this is."""
    plain = call(model=tiny, seed=3)
    assert call(model=tiny, seed=3, **{name: False}) == plain
    assert call(model=tiny, seed=3, **{name: True}) == plain
    with pytest.raises(litellm.UnsupportedParamsError, match="drops_everything is not a parameter"):
        call(model=tiny, drops_everything=True)
