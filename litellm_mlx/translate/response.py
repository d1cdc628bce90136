"""Engine events to LiteLLM's whole answers and stream chunks, and our errors to LiteLLM's."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from litellm import exceptions
from litellm.types.utils import (
    ChatCompletionDeltaToolCall,
    ChatCompletionMessageToolCall,
    ChatCompletionTokenLogprob,
    ChoiceLogprobs,
    Choices,
    CompletionTokensDetailsWrapper,
    Embedding,
    EmbeddingResponse,
    Function,
    FunctionCall,
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
    ConstraintViolationError,
    LiteLLMMLXError,
    ModelNotFoundError,
    OverloadedError,
    PromptTooLongError,
    RequestError,
    RequestTimeoutError,
    UnsupportedParameterError,
    WorkerError,
)
from litellm_mlx.translate.answer_facts import AnswerFacts
from litellm_mlx.types import (
    Delta,
    Done,
    Event,
    Finished,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)

if TYPE_CHECKING:
    from litellm_mlx.translate.embedding import Vectors

PROVIDER = "mlx"
# Key in a response's `_hidden_params` under which the engine's own timings travel.
TIMINGS_KEY = "litellm_mlx_timings"


class AnswerBuilder:
    """Collects the events of one request into LiteLLM's whole answer."""

    def __init__(self, n: int) -> None:
        self._text = [""] * n
        self._reasoning = [""] * n
        self._logprobs: list[list[TokenLogprob]] = [[] for _ in range(n)]
        self._calls: list[dict[int, ToolCallDelta]] = [{} for _ in range(n)]
        self._finished = [Finished(index, "stop") for index in range(n)]
        self._done: Done | None = None

    def add(self, event: Event) -> None:
        """Take the next event."""
        if isinstance(event, Delta):
            self._text[event.index] += event.text
            self._reasoning[event.index] += event.reasoning
            self._logprobs[event.index].extend(event.logprobs)
            for delta in event.tool_calls:
                self._add_call(self._calls[event.index], delta)
        elif isinstance(event, Finished):
            self._finished[event.index] = event
        else:
            self._done = event

    def fill(self, response: ModelResponse, facts: AnswerFacts) -> ModelResponse:
        """Write the answer into LiteLLM's own response object, which it wants back."""
        assert self._done is not None, "an answer ends with Done"
        response.model = facts.model
        response.system_fingerprint = facts.fingerprint
        response.choices = [self._choice(i, self._done, facts) for i in range(len(self._text))]
        response.usage = _usage(self._done.usage)  # type: ignore[attr-defined]  # pydantic extra
        response._hidden_params[TIMINGS_KEY] = self._done.timings
        return response

    def _add_call(self, calls: dict[int, ToolCallDelta], delta: ToolCallDelta) -> None:
        known = calls.get(delta.position)
        if known is not None:
            delta = replace(known, arguments=known.arguments + delta.arguments)
        calls[delta.position] = delta

    def _choice(self, index: int, done: Done, facts: AnswerFacts) -> Choices:
        calls = list(self._calls[index].values())
        # As OpenAI has it: content is null where the answer is a call.
        text = self._text[index]
        message = Message(content=None if calls and not text.strip() else text, role="assistant")
        if calls and facts.is_function_call:
            message.function_call = FunctionCall(name=calls[0].name, arguments=calls[0].arguments)
        elif calls:
            message.tool_calls = [_tool_call(call) for call in calls]
        if self._reasoning[index]:
            message.reasoning_content = self._reasoning[index]
        if extras := facts.extras(done, self._finished[index]):
            message.provider_specific_fields = extras
        return Choices(
            index=index,
            finish_reason=facts.finish_reason(self._finished[index]),
            message=message,
            logprobs=_logprobs(self._logprobs[index]) if facts.wants_logprobs else None,
        )


class ChunkBuilder:
    """Turns the events of one request into LiteLLM's stream chunks, all with one id.

    LiteLLM swallows whatever stands on the chunk that carries the finish reason and everything
    after it, so the usage goes out on an empty chunk before a bare finish chunk. The empty chunk is
    of the kind that came last, a call or text: for another kind LiteLLM's Messages door would open
    an empty block, which Anthropic refuses in a history.
    """

    def __init__(self, facts: AnswerFacts) -> None:
        self._facts = facts
        self._id = f"chatcmpl-{uuid.uuid4()}"
        self._created = int(time.time())
        self._finished = Finished(0, "stop")
        self._role: str | None = "assistant"
        self._last_call: int | None = None  # position of the call that was written last

    def chunks(self, event: Event) -> Iterable[ModelResponseStream]:
        """The chunks that one event gives."""
        if isinstance(event, Delta):
            yield self._delta(event)
        elif isinstance(event, Finished):
            self._finished = event
        else:
            last = self._empty_delta()
            last.provider_specific_fields = self._facts.extras(event, self._finished)
            usage = self._chunk(last)
            usage.usage = _usage(event.usage)
            yield usage
            reason = self._facts.finish_reason(self._finished)
            yield self._chunk(LiteLLMDelta(), finish_reason=reason)

    def _empty_delta(self) -> LiteLLMDelta:
        if self._last_call is None or self._facts.is_function_call:
            return LiteLLMDelta(content="", role=None)
        nothing = _tool_call_delta(ToolCallDelta(self._last_call))
        return LiteLLMDelta(content=None, role=None, tool_calls=[nothing])

    def _delta(self, event: Delta) -> ModelResponseStream:
        if event.tool_calls:
            self._last_call = event.tool_calls[-1].position
        delta = LiteLLMDelta(content=event.text, role=self._role, **self._calls(event))
        self._role = None
        if event.reasoning:
            delta.reasoning_content = event.reasoning
        logprobs = _logprobs(event.logprobs) if self._facts.wants_logprobs else None
        return self._chunk(delta, logprobs=logprobs)

    def _calls(self, event: Delta) -> dict[str, Any]:
        if not event.tool_calls:
            return {}
        if not self._facts.is_function_call:
            return {"tool_calls": [_tool_call_delta(call) for call in event.tool_calls]}
        call = event.tool_calls[0]  # the older form knows one call only
        return {"function_call": FunctionCall(name=call.name or None, arguments=call.arguments)}

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
            model=self._facts.model,
            system_fingerprint=self._facts.fingerprint,
            choices=[choice],
        )


def _tool_call(call: ToolCallDelta) -> ChatCompletionMessageToolCall:
    function = Function(name=call.name, arguments=call.arguments)
    return ChatCompletionMessageToolCall(id=call.id, type="function", function=function)


def _tool_call_delta(call: ToolCallDelta) -> ChatCompletionDeltaToolCall:
    return ChatCompletionDeltaToolCall(
        id=call.id or None,
        type="function",  # on each, as LiteLLM's own streams have it; Google's ADK asks
        index=call.position,
        function=Function(name=call.name or None, arguments=call.arguments),
    )


def to_litellm_error(error: LiteLLMMLXError, model: str) -> Exception:
    """The LiteLLM exception that a client expects; only what may succeed later is retryable."""
    message = str(error)
    if isinstance(error, ConstraintViolationError):
        violation = exceptions.JSONSchemaValidationError(model, PROVIDER, error.text, message)
        violation.message = f"litellm.JSONSchemaValidationError: {message}"
        violation.args = (violation.message,)  # its own text repeats the whole answer
        violation.status_code = 422  # LiteLLM's 500 would have streams wrapped and Routers retry
        return violation
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
    if isinstance(error, WorkerError):
        return exceptions.ServiceUnavailableError(message, PROVIDER, model)
    if isinstance(error, RequestTimeoutError):
        return exceptions.Timeout(message, model, PROVIDER)
    return exceptions.InternalServerError(message, PROVIDER, model)


def embedding_response(
    response: EmbeddingResponse, model: str, vectors: Vectors, num_tokens: int
) -> EmbeddingResponse:
    """Put an answer into LiteLLM's response."""
    response.model = model
    response.data = [
        Embedding(embedding=vector.tolist(), index=index, object="embedding")
        for index, vector in enumerate(vectors)
    ]
    response.usage = LiteLLMUsage(
        prompt_tokens=num_tokens, completion_tokens=0, total_tokens=num_tokens
    )
    return response


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
