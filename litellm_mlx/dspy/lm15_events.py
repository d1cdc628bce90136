"""Our events and errors in the words of lm15, the types that DSPy speaks."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dspy import lm15  # type: ignore[import-untyped]

from litellm_mlx import errors, observe
from litellm_mlx.dspy.lm15_requests import PROVIDER, adaptations, bare_name
from litellm_mlx.types import Delta, Event, Finished, TokenLogprob, ToolCallDelta, Usage

if TYPE_CHECKING:
    from litellm_mlx.translate.answer_facts import AnswerFacts

# The first that fits. DSPy retries rate limits, timeouts and server errors, and nothing else.
_ERRORS: tuple[tuple[type[errors.LiteLLMMLXError], Callable[..., Exception]], ...] = (
    (errors.PromptTooLongError, lm15.ContextLengthError),
    (errors.UnsupportedParameterError, lm15.UnsupportedFeatureError),
    (errors.ModelNotFoundError, lm15.UnsupportedModelError),
    (errors.RequestError, lm15.InvalidRequestError),
    (errors.OverloadedError, lm15.RateLimitError),
    (errors.RequestTimeoutError, lm15.TimeoutError),
    (errors.RequestCancelled, lm15.ProviderError),
    (errors.LiteLLMMLXError, lm15.ServerError),
)


class EventWriter:
    """Turns the events of one answer into lm15's."""

    def __init__(self, request: lm15.Request, facts: AnswerFacts) -> None:
        self._model = request.model
        self._adaptations = adaptations(request)
        self._facts = facts
        self._finished = Finished(0, "stop")
        self._parts: dict[tuple[str, int], int] = {}

    def start(self) -> Any:
        """The first event."""
        return lm15.StreamStartEvent(f"chatcmpl-{uuid.uuid4()}", self._model, self._adaptations)

    def write(self, event: Event) -> Iterator[Any]:
        """What one event of ours is in lm15's words."""
        if isinstance(event, Delta):
            yield from map(lm15.StreamDeltaEvent, self._deltas(event))
        elif isinstance(event, Finished):
            self._finished = event
        else:
            extras = self._facts.extras(event, self._finished) or {}
            fingerprint, timings = self._facts.fingerprint, asdict(event.timings)
            reason = self._facts.finish_reason(self._finished)
            yield lm15.StreamEndEvent(
                "tool_call" if reason == "tool_calls" else reason,
                _usage(event.usage),
                {**extras, "system_fingerprint": fingerprint, "timings": timings},
            )

    def _deltas(self, event: Delta) -> Iterator[Any]:
        if event.reasoning:
            yield lm15.ThinkingDelta(event.reasoning, self._part("thinking"))
        logprobs = tuple(map(_logprob, event.logprobs)) if self._facts.wants_logprobs else ()
        if event.text or logprobs:
            yield lm15.TextDelta(event.text, self._part("text"), logprobs)
        yield from map(self._call_delta, event.tool_calls)

    def _call_delta(self, call: ToolCallDelta) -> Any:
        part = self._part("call", call.position)
        return lm15.ToolCallDelta(call.arguments, part, id=call.id or None, name=call.name or None)

    def _part(self, kind: str, position: int = 0) -> int:
        """The number of a part of the answer; parts are numbered as they come."""
        return self._parts.setdefault((kind, position), len(self._parts))


@contextmanager
def typed_errors(request: lm15.Request) -> Iterator[observe.Asked]:
    """Give DSPy errors of its own kinds; what we did not expect stays, and nobody retries it."""
    asked = observe.Asked(bare_name(request), {})
    try:
        yield asked
    except BaseException as error:
        asked.failed(error)
        if not isinstance(error, errors.LiteLLMMLXError):
            raise
        kind = next(theirs for ours, theirs in _ERRORS if isinstance(error, ours))
        raise kind(str(error), provider=PROVIDER, status=error.http_status) from error


def _usage(usage: Usage) -> Any:
    return lm15.Usage(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        cache_read_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )


def _logprob(token: TokenLogprob) -> Any:
    top = tuple(
        lm15.TopLogprob(raw.decode("utf-8", "replace"), logprob, tuple(raw), token_id)
        for token_id, raw, logprob in token.top
    )
    text = token.token_bytes.decode("utf-8", "replace")
    return lm15.TokenLogprob(text, token.logprob, tuple(token.token_bytes), token.token_id, top)
