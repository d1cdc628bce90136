"""Whether and how long a model thinks before it answers, from the names that clients know.

`reasoning_effort` is OpenAI's, `thinking` Anthropic's, `chat_template_kwargs` Hugging Face's; they
are read here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from litellm_mlx.errors import UnsupportedParameterError
from litellm_mlx.translate.params import RequestParams, ThinkingParam

# The budgets that LiteLLM gives Anthropic's models for the same words (1.106), and twice and four
# times the last for what came later.
EFFORT_TOKENS: Mapping[str, int] = {
    "minimal": 128,
    "low": 1024,
    "medium": 2048,
    "high": 4096,
    "xhigh": 8192,
    "max": 16384,
}
SWITCH = "enable_thinking"  # the name that nearly all chat templates read


@dataclass(frozen=True, slots=True)
class ThinkingWish:
    """What the caller said; `None` where he said nothing.

    `asked_by` is the parameter that asks for thinking, with its value.
    """

    is_on: bool | None = None
    budget_tokens: int | None = None
    effort: str | None = None
    asked_by: str = ""


def wish_of(params: RequestParams) -> ThinkingWish:
    """Read a request's wish.

    Raises:
        UnsupportedParameterError: one parameter says on and another off.
    """
    said = {
        f"{SWITCH}={params.chat_template_kwargs.get(SWITCH)}": _switch(params),
        f"reasoning_effort={params.reasoning_effort}": _by_effort(params),
        "thinking": _by_thinking(params.thinking),
    }
    on = [name for name, is_on in said.items() if is_on is True]
    off = [name for name, is_on in said.items() if is_on is False]
    if on and off:
        raise UnsupportedParameterError(
            f"{on[0]} asks for thinking and {off[0]} for none; send one of them"
        )
    budget_tokens = EFFORT_TOKENS.get(params.reasoning_effort or "")
    if params.thinking is not None and params.thinking.budget_tokens:
        budget_tokens = params.thinking.budget_tokens
    return ThinkingWish(
        is_on=True if on else False if off else None,
        budget_tokens=budget_tokens,
        effort=params.reasoning_effort,
        asked_by=on[0] if on else "",
    )


def template_kwargs(given: Mapping[str, Any], wish: ThinkingWish, *, is_on: bool) -> dict[str, Any]:
    """What the chat template is told: the caller's names, the switch, and the effort if given."""
    kwargs: dict[str, Any] = {**given, SWITCH: is_on}
    if wish.effort in ("low", "medium", "high"):  # what gpt-oss's template knows
        kwargs.setdefault("reasoning_effort", wish.effort)
    return kwargs


def _switch(params: RequestParams) -> bool | None:
    value = params.chat_template_kwargs.get(SWITCH)
    return None if value is None else bool(value)


def _by_thinking(thinking: ThinkingParam | None) -> bool | None:
    """`adaptive` leaves it to the model; a budget of nothing is none, as Gemini has it."""
    if thinking is None or thinking.type == "adaptive":
        return None
    return thinking.type == "enabled" and thinking.budget_tokens != 0


def _by_effort(params: RequestParams) -> bool | None:
    """An effort asks for thinking, but beside `adaptive` only says how much, if any."""
    effort, thinking = params.reasoning_effort, params.thinking
    if effort == "none":
        return False
    is_left_open = thinking is not None and thinking.type == "adaptive"
    return None if effort in (None, "default") or is_left_open else True
