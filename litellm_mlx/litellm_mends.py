"""What LiteLLM does otherwise for `mlx/` names than for other custom providers.

Owns the wrappers around LiteLLM's own functions, where no hook of LiteLLM's comes first. Each says
what LiteLLM does, on which releases that was seen, and what stays where a release has moved the
function: then nothing is wrapped.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import litellm
from litellm.llms.anthropic.pass_through.adapters import (
    streaming_iterator as anthropic_streams,
)
from litellm.llms.anthropic.pass_through.adapters import transformation as anthropic_messages
from litellm.responses.litellm_completion_transformation import handler as responses_bridge

from litellm_mlx.errors import UnsupportedParameterError
from litellm_mlx.network import has_database
from litellm_mlx.translate.response import PROVIDER, to_litellm_error
from litellm_mlx.translate.responses_request import check_responses_request

Function = Callable[..., Any]

_HINTS = ("reasoning_effort", "thinking", "verbosity", "context_management")


def wraps(owner: Any, name: str) -> Callable[[Function], Callable[[], None]]:
    """Make of a function one that puts it around `owner`'s function of this name, once.

    It gets that function as its first argument, and then what that is called with.
    """

    def of(around: Function) -> Callable[[], None]:
        @functools.wraps(around)
        def install() -> None:
            original = getattr(owner, name, None)
            if original is None or getattr(original, "knows_mlx", False):
                return

            def wrapper(*args: Any, **kwargs: Any) -> Any:
                return around(original, *args, **kwargs)

            wrapper.knows_mlx = True  # type: ignore[attr-defined]  # marks it as wrapped
            setattr(owner, name, wrapper)

        return install

    return of


def mend_litellm() -> None:
    """Put all of them in place; a second call changes nothing."""
    _let_hints_through()
    _keep_anthropics_thinking()
    _refuse_what_responses_would_lose()
    _give_every_completion_chunk_text()
    _name_the_stop_sequence()
    _name_the_streams_stop_sequence()


@wraps(litellm.main, "get_optional_params")
def _let_hints_through(original: Function, *args: Any, **kwargs: Any) -> Any:
    """Have LiteLLM pass on what it refuses for custom providers and we have our own word on.

    A caller can ask for it himself (`allowed_openai_params`), but DSPy, the Responses API and
    Anthropic's messages give him no place to. LiteLLM looks this function up at every call; tested
    against 1.106.2, and where a release has moved it, the caller's way remains.
    """
    if kwargs.get("custom_llm_provider") == PROVIDER:
        allowed = kwargs.get("allowed_openai_params") or []
        kwargs["allowed_openai_params"] = [*allowed, *_HINTS]
    return original(*args, **kwargs)


@wraps(
    getattr(responses_bridge, "LiteLLMCompletionTransformationHandler", None),
    "response_api_handler",
)
def _refuse_what_responses_would_lose(original: Function, *args: Any, **kwargs: Any) -> Any:
    """Look at a request to the Responses API while it is one.

    LiteLLM makes a chat completion of it, and a history by id, tools of OpenAI's and prompts by id
    are gone by the time that a provider sees it; no hook of LiteLLM's comes before (1.106 to 1.110,
    search its issues for "previous_response_id custom provider"). With its proxy's database LiteLLM
    knows histories itself. Where a release has moved the function, things are as they were.
    """
    if kwargs.get("custom_llm_provider") == PROVIDER:
        request = dict(kwargs.get("responses_api_request") or {})
        if has_database() and kwargs.get("_is_async"):
            request.pop("previous_response_id", None)
        drops_tools = bool(litellm.drop_params or kwargs.get("drop_params"))
        try:
            check_responses_request(request, kwargs.get("input"), drops_tools=drops_tools)
        except UnsupportedParameterError as error:
            raise to_litellm_error(error, str(kwargs.get("model"))) from error
    return original(*args, **kwargs)


_MESSAGES = getattr(anthropic_messages, "LiteLLMAnthropicMessagesAdapter", None)


@wraps(_MESSAGES, "_translate_thinking_to_openai")
def _keep_anthropics_thinking(original: Function, *args: Any, **kwargs: Any) -> None:
    """Have LiteLLM hand on `thinking` of Anthropic's messages, as it does to Claude's providers.

    To all others it sends the nearest `reasoning_effort`: an exact budget is lost, and "adaptive",
    which leaves the choice to the model, becomes a demand (1.106 to 1.110; search its issues for
    "adaptive thinking reasoning_effort medium"). Where a release has moved the function, things are
    as LiteLLM has them.
    """
    request = kwargs.get("anthropic_message_request") or {}
    thinking = request.get("thinking")
    if kwargs.get("custom_llm_provider") != PROVIDER or not isinstance(thinking, dict):
        original(*args, **kwargs)
        return
    kwargs["new_kwargs"]["thinking"] = thinking
    effort = (request.get("output_config") or {}).get("effort")
    if thinking.get("type") == "adaptive" and effort is not None:
        kwargs["new_kwargs"]["reasoning_effort"] = effort


@wraps(
    getattr(litellm.utils, "TextCompletionStreamWrapper", None),
    "convert_to_text_completion_object",
)
def _give_every_completion_chunk_text(original: Function, stream: Any, chunk: Any) -> Any:
    """Have each chunk of a text completion's stream hold a string, as OpenAI's do.

    LiteLLM makes the last chunk of a stream itself, with a delta whose content is `None`, and
    copies that (BerriAI/litellm#11158); clients that join the texts break. Tested against 1.106.2;
    it ends when LiteLLM writes "" there.
    """
    converted = original(stream, chunk=chunk)
    names = (stream.custom_llm_provider, str(stream.model).partition("/")[0])
    for choice in converted.choices if PROVIDER in names else ():
        choice.text = choice.text or ""
    return converted


@wraps(_MESSAGES, "translate_openai_response_to_anthropic")
def _name_the_stop_sequence(original: Function, *args: Any, **kwargs: Any) -> Any:
    """Have an answer of Anthropic's messages say which stop text ended it.

    LiteLLM writes "end_turn" and no text for every provider that answers in OpenAI's shape, which
    has no place for it (1.106 to 1.110; search its issues for "stop_sequence null messages"). Ours
    stands in `provider_specific_fields`. It ends when LiteLLM reads such a field.
    """
    answer = original(*args, **kwargs)
    response = kwargs.get("response", args[1] if len(args) > 1 else None)
    choices = getattr(response, "choices", None) or [None]
    if text := _stop_text(getattr(choices[0], "message", None)):
        answer["stop_reason"], answer["stop_sequence"] = "stop_sequence", text
    return answer


@wraps(
    getattr(anthropic_streams, "AnthropicStreamWrapper", None),
    "_merge_usage_into_held_stop_reason_chunk",
)
def _name_the_streams_stop_sequence(original: Function, stream: Any, chunk: Any) -> Any:
    """The same of a stream: the last chunk of ours names the text, and LiteLLM's own follow it."""
    merged = original(stream, chunk)
    for sent in reversed(stream.chunks or []):
        if text := _stop_text(sent.choices[0].delta if sent.choices else None):
            ending = {**merged["delta"], "stop_reason": "stop_sequence", "stop_sequence": text}
            return {**merged, "delta": ending}
    return merged


def _stop_text(part: Any) -> str | None:
    """The stop text that a message or delta of ours names."""
    fields = getattr(part, "provider_specific_fields", None) or {}
    text = fields.get("stop_sequence")
    return text if isinstance(text, str) else None
