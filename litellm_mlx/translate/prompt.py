"""The prompt of one call: rendered by the model's template, and opened or closed for thinking.

A constrained answer begins at a known place: after a thinking block that is open at the prompt's
end, or at once. A model that thinks only when it likes is therefore told which of the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from litellm_mlx.errors import UnsupportedParameterError
from litellm_mlx.translate.messages import encode_chat, ends_in_thinking, render_chat
from litellm_mlx.translate.thinking import ThinkingWish, template_kwargs

# How much of the answer is constrained: nothing, calls in free text, all of it, or all of it with a
# thought as a channel of its own, which is then the constraint's business.
Guided = Literal["free", "calls", "all", "channels"]


class PromptModel(Protocol):
    """What a prompt is made with."""

    @property
    def tokenizer(self) -> Any:
        """mlx-lm's tokenizer wrapper."""

    @property
    def thinking_markers(self) -> tuple[str, str] | None:
        """The texts that open and close a thinking block, where it has one."""

    @property
    def thinks(self) -> bool:
        """It writes such blocks; a vocabulary may have the markers for the sake of its kin."""

    @property
    def answer_opening(self) -> str:
        """What the model itself writes before an answer without thinking; mostly nothing."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt ready for the engine.

    Attributes:
        token_ids: of the whole prompt.
        opens_reasoning: it ends inside a thinking block.
        end_token_ids: what ends that block, where the engine must see to it; else empty.
    """

    token_ids: tuple[int, ...]
    opens_reasoning: bool = False
    end_token_ids: tuple[int, ...] = ()


def chat_prompt(
    messages: Sequence[Mapping[str, Any]],
    model: PromptModel,
    template: Mapping[str, Any],
    wish: ThinkingWish,
    guided: Guided,
    *,
    tools: Sequence[Mapping[str, Any]] = (),
) -> Prompt:
    """Render a chat.

    Args:
        messages: OpenAI's shape.
        model: whose template and markers.
        template: further names for the template.
        wish: what the caller said about thinking.
        guided: how much of the answer is constrained.
        tools: the functions that may be called.

    Raises:
        RequestError: the template refuses the messages.
        UnsupportedParameterError: thinking is asked of a model that does not.
    """
    markers = model.thinking_markers
    if markers is None or not model.thinks:
        if wish.is_on:
            raise UnsupportedParameterError(
                f"{wish.asked_by} asks for thinking, and this model does not think; leave it out, "
                "or set drop_params=True"
            )
        text = render_chat(model.tokenizer, messages, template, tools=tools)
        return Prompt(encode_chat(model.tokenizer, text))

    def render(is_on: bool) -> str:
        kwargs = template_kwargs(template, wish, is_on=is_on)
        return render_chat(model.tokenizer, messages, kwargs, tools=tools)

    is_on = guided != "all" if wish.is_on is None else wish.is_on
    text = render(is_on)
    if guided == "channels":
        return Prompt(encode_chat(model.tokenizer, text))
    is_inside = ends_in_thinking(text, markers)
    if guided == "free" and wish.budget_tokens is None:  # the model ends its own thought
        return Prompt(encode_chat(model.tokenizer, text), opens_reasoning=is_inside)
    if is_inside and wish.is_on is False:
        # The template leaves no choice; an empty thought keeps the answer in the model's format.
        text += f"\n{markers[1]}\n\n"
        is_inside = False
    elif not is_inside and is_on and not _continues(messages):
        if wish.is_on or render(False) != text:
            text += markers[0] if model.answer_opening else f"{markers[0]}\n"
            is_inside = True
    if guided == "all" and not is_inside and not _continues(messages):
        text += model.answer_opening
    after = "" if model.answer_opening else "\n\n"  # channels are not set off by line breaks
    end = encode_chat(model.tokenizer, markers[1] + after) if is_inside else ()
    return Prompt(encode_chat(model.tokenizer, text), is_inside, end)


def _continues(messages: Sequence[Mapping[str, Any]]) -> bool:
    """The caller has written the beginning of the answer himself."""
    return bool(messages) and messages[-1].get("role") == "assistant"
