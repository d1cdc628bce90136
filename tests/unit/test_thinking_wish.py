"""What each spelling of `reasoning_effort` and `thinking` asks for, whichever API has it."""

from __future__ import annotations

from typing import Any

import pytest

from litellm_mlx.errors import UnsupportedParameterError
from litellm_mlx.translate.params import parse_params
from litellm_mlx.translate.thinking import EFFORT_TOKENS, ThinkingWish, wish_of

ON: list[dict[str, Any]] = [
    *({"reasoning_effort": effort} for effort in EFFORT_TOKENS),
    {"reasoning_effort": {"effort": "low"}},
    {"reasoning_effort": {"effort": "high", "summary": "auto"}},
    {"reasoning_effort": {"effort": "high", "generate_summary": "concise"}},
    {"thinking": {"type": "enabled"}},
    {"thinking": {"type": "enabled", "budget_tokens": 1}},
    {"thinking": {"type": "enabled", "display": "summarized", "summary": "detailed"}},
    {"thinking": {"budget_tokens": 1024}},
    {"thinking": {"type": "enabled"}, "reasoning_effort": "low"},
    {"thinking": {"type": "adaptive"}, "chat_template_kwargs": {"enable_thinking": True}},
    {"chat_template_kwargs": {"enable_thinking": True}},
]
OFF: list[dict[str, Any]] = [
    {"reasoning_effort": "none"},
    {"reasoning_effort": "disable"},
    {"reasoning_effort": {"effort": "none", "summary": "auto"}},
    {"thinking": {"type": "disabled"}},
    {"thinking": {"type": "enabled", "budget_tokens": 0}},
    {"thinking": {"type": "disabled"}, "reasoning_effort": "none"},
    {"thinking": {"type": "adaptive"}, "reasoning_effort": "none"},
    {"chat_template_kwargs": {"enable_thinking": False}},
]
OPEN: list[dict[str, Any]] = [
    {},
    {"reasoning_effort": None},
    {"reasoning_effort": "default"},
    {"reasoning_effort": {}},
    {"reasoning_effort": {"effort": None}},
    {"reasoning_effort": {"summary": "auto"}},
    {"thinking": {"type": "adaptive"}},
    {"thinking": {"type": "adaptive", "display": "omitted"}},
    {"thinking": {"type": "adaptive", "budget_tokens": 99}},
    {"thinking": {"type": "adaptive"}, "reasoning_effort": "max"},
    {"chat_template_kwargs": {"enable_thinking": None}},
]


def wish(given: dict[str, Any]) -> ThinkingWish:
    return wish_of(parse_params(given, drops_unsupported=False))


@pytest.mark.parametrize("given", ON, ids=str)
def test_on(given: dict[str, Any]) -> None:
    assert wish(given).is_on is True
    assert wish(given).asked_by  # an error can name it


@pytest.mark.parametrize("given", OFF, ids=str)
def test_off(given: dict[str, Any]) -> None:
    assert wish(given).is_on is False


@pytest.mark.parametrize("given", OPEN, ids=str)
def test_left_open(given: dict[str, Any]) -> None:
    assert wish(given).is_on is None
    assert not wish(given).asked_by


@pytest.mark.parametrize("on", ON[-1:] + ON[:1], ids=str)
@pytest.mark.parametrize("off", [OFF[3], OFF[4]], ids=str)
def test_on_and_off_together_are_refused(on: dict[str, Any], off: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedParameterError, match="send one of them"):
        wish({**on, **off})


def test_a_budget_in_tokens_beats_that_of_an_effort() -> None:
    assert wish({"reasoning_effort": "low"}).budget_tokens == EFFORT_TOKENS["low"]
    both = {"reasoning_effort": "low", "thinking": {"budget_tokens": 7}}
    assert wish(both).budget_tokens == 7
    adaptive = {"reasoning_effort": "low", "thinking": {"type": "adaptive"}}
    assert wish(adaptive).budget_tokens == EFFORT_TOKENS["low"]


@pytest.mark.parametrize(
    "given",
    [
        {"reasoning_effort": ""},
        {"reasoning_effort": "lots"},
        {"reasoning_effort": {"effort": "low", "budget": 5}},
        {"thinking": {"type": "sometimes"}},
        {"thinking": {"budget_tokens": -1}},
        {"thinking": {"effort": "low"}},
        {"thinking": "adaptive"},
    ],
    ids=str,
)
def test_what_no_client_means_is_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedParameterError, match=next(iter(given))):
        wish(given)
