"""Engine events to LiteLLM's whole answers and stream chunks, and our errors to LiteLLM's."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable

from litellm import exceptions
from litellm.types.utils import (
    ChatCompletionTokenLogprob,
    ChoiceLogprobs,
    Choices,
    CompletionTokensDetailsWrapper,
    Message,
    ModelResponse,
    ModelResponseStream,
    PromptTokensDetailsWrapper,
    StreamingChoices,
    TopLogprob,
)
from litellm.types.utils import Delta as LiteLLMDelta
from litellm.types.utils import Usage as LiteLLMUsage

from litellm_mlx.errors import (
    LiteLLMMLXError,
    ModelNotFoundError,
    OverloadedError,
    PromptTooLongError,
    RequestError,
    RequestTimeoutError,
    UnsupportedParameterError,
)
from litellm_mlx.types import Delta, Done, Event, Finished, TokenLogprob, Usage

PROVIDER = "mlx"
# Key in a response's `_hidden_params` under which the engine's own timings travel.
TIMINGS_KEY = "litellm_mlx_timings"


class AnswerBuilder:
    """Collects the events of one request into LiteLLM's whole answer."""

    def __init__(self, n: int) -> None:
        self._text = [""] * n
        self._reasoning = [""] * n
        self._logprobs: list[list[TokenLogprob]] = [[] for _ in range(n)]
        self._reasons = ["stop"] * n
        self._done: Done | None = None

    def add(self, event: Event) -> None:
        """Take the next event."""
        if isinstance(event, Delta):
            self._text[event.index] += event.text
            self._reasoning[event.index] += event.reasoning
            self._logprobs[event.index].extend(event.logprobs)
        elif isinstance(event, Finished):
            self._reasons[event.index] = event.reason
        else:
            self._done = event

    def fill(
        self, response: ModelResponse, *, model: str, fingerprint: str, wants_logprobs: bool
    ) -> ModelResponse:
        """Write the answer into LiteLLM's own response object, which it wants back."""
        assert self._done is not None, "an answer ends with Done"
        response.model = model
        response.system_fingerprint = fingerprint
        response.choices = [self._choice(i, wants_logprobs) for i in range(len(self._text))]
        response.usage = _usage(self._done.usage)  # type: ignore[attr-defined]  # pydantic extra
        response._hidden_params[TIMINGS_KEY] = self._done.timings
        return response

    def _choice(self, index: int, wants_logprobs: bool) -> Choices:
        message = Message(content=self._text[index], role="assistant")
        if self._reasoning[index]:
            message.reasoning_content = self._reasoning[index]
        logprobs = _logprobs(self._logprobs[index]) if wants_logprobs else None
        return Choices(
            index=index,
            finish_reason=self._reasons[index],
            message=message,
            logprobs=logprobs,
        )


class ChunkBuilder:
    """Turns the events of one request into LiteLLM's stream chunks, all with one id.

    LiteLLM swallows whatever stands on the chunk that carries the finish reason and everything
    after it, so the usage goes out on an empty chunk before a bare finish chunk.
    """

    def __init__(self, *, model: str, fingerprint: str, wants_logprobs: bool) -> None:
        self._model = model
        self._fingerprint = fingerprint
        self._wants_logprobs = wants_logprobs
        self._id = f"chatcmpl-{uuid.uuid4()}"
        self._created = int(time.time())
        self._reason = "stop"
        self._role: str | None = "assistant"

    def chunks(self, event: Event) -> Iterable[ModelResponseStream]:
        """The chunks that one event gives."""
        if isinstance(event, Delta):
            yield self._delta(event)
        elif isinstance(event, Finished):
            self._reason = event.reason
        else:
            usage = self._chunk(LiteLLMDelta(content="", role=None))
            usage.usage = _usage(event.usage)
            yield usage
            yield self._chunk(LiteLLMDelta(), finish_reason=self._reason)

    def _delta(self, event: Delta) -> ModelResponseStream:
        delta = LiteLLMDelta(content=event.text, role=self._role)
        self._role = None
        if event.reasoning:
            delta.reasoning_content = event.reasoning
        logprobs = _logprobs(event.logprobs) if self._wants_logprobs else None
        return self._chunk(delta, logprobs=logprobs)

    def _chunk(
        self,
        delta: LiteLLMDelta,
        *,
        finish_reason: str | None = None,
        logprobs: ChoiceLogprobs | None = None,
    ) -> ModelResponseStream:
        choice = StreamingChoices(
            index=0, delta=delta, finish_reason=finish_reason, logprobs=logprobs
        )
        return ModelResponseStream(
            id=self._id,
            created=self._created,
            model=self._model,
            system_fingerprint=self._fingerprint,
            choices=[choice],
        )


def to_litellm_error(error: LiteLLMMLXError, model: str) -> Exception:
    """The LiteLLM exception that a client expects; only what may succeed later is retryable."""
    message = str(error)
    if isinstance(error, PromptTooLongError):
        return exceptions.ContextWindowExceededError(message, model, PROVIDER)
    if isinstance(error, UnsupportedParameterError):
        return exceptions.UnsupportedParamsError(message, llm_provider=PROVIDER, model=model)
    if isinstance(error, RequestError):
        return exceptions.BadRequestError(message, model, PROVIDER)
    if isinstance(error, ModelNotFoundError):
        return exceptions.NotFoundError(message, model, PROVIDER)
    if isinstance(error, OverloadedError):
        return exceptions.RateLimitError(message, PROVIDER, model)
    if isinstance(error, RequestTimeoutError):
        return exceptions.Timeout(message, model, PROVIDER)
    return exceptions.InternalServerError(message, PROVIDER, model)


def _usage(usage: Usage) -> LiteLLMUsage:
    return LiteLLMUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetailsWrapper(cached_tokens=usage.cached_tokens),
        completion_tokens_details=CompletionTokensDetailsWrapper(
            reasoning_tokens=usage.reasoning_tokens
        ),
    )


def _logprobs(tokens: Iterable[TokenLogprob]) -> ChoiceLogprobs:
    return ChoiceLogprobs(content=[_token_logprob(token) for token in tokens])


def _token_logprob(token: TokenLogprob) -> ChatCompletionTokenLogprob:
    top = [
        TopLogprob(token=_text(raw), bytes=list(raw), logprob=logprob)
        for _, raw, logprob in token.top
    ]
    return ChatCompletionTokenLogprob(
        token=_text(token.token_bytes),
        bytes=list(token.token_bytes),
        logprob=token.logprob,
        top_logprobs=top,
    )


def _text(token_bytes: bytes) -> str:
    return token_bytes.decode("utf-8", "replace")
