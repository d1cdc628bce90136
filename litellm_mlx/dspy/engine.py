"""The engine objects that `dspy.LM` takes, one for its sync and one for its async calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from dspy import lm15  # type: ignore[import-untyped]
from dspy.clients.engines.base import validate_request  # type: ignore[import-untyped]

from litellm_mlx.dspy.lm15_events import EventWriter, typed_errors
from litellm_mlx.dspy.lm15_requests import bare_name, in_openai_shape
from litellm_mlx.errors import UnsupportedParameterError
from litellm_mlx.register import handler
from litellm_mlx.translate.params import parse_params

if TYPE_CHECKING:
    from litellm_mlx.serve_call import StartedCall


class EngineHandle:
    """What both engines are made of.

    Args:
        thinks: the model writes a thinking block, so that DSPy may ask for its reasoning.
        timeout: seconds for each request; else `LITELLM_MLX_DEFAULT_TIMEOUT_S`.
        drop_params: leave out what the model cannot honour, rather than refuse the request.
        params: of every request that does not say otherwise, in the names of the LiteLLM door:
            those too that `dspy.LM` does not take with an engine, such as `min_p`,
            `chat_template_kwargs`, `structured_outputs` or `budget_finish_reason`. DSPy's cache
            does not know them.

    Raises:
        UnsupportedParameterError: a parameter that is none, or a value out of range.
    """

    supports_function_calling = True
    supports_response_schema = True
    supported_params = frozenset(
        {
            *("frequency_penalty", "logit_bias", "logprobs", "max_tokens", "parallel_tool_calls"),
            *("presence_penalty", "prompt_cache_key", "reasoning_effort", "response_format"),
            *("seed", "stop", "temperature", "tool_choice", "tools", "top_k", "top_logprobs"),
            "top_p",
        }
    )

    def __init__(
        self,
        *,
        thinks: bool = False,
        timeout: float | None = None,
        drop_params: bool = False,
        **params: Any,
    ) -> None:
        if parse_params(params, drops_unsupported=False).n != 1:
            raise UnsupportedParameterError(
                "an engine answers once; pass n to dspy.LM or to the call, and DSPy asks n times"
            )
        self.supports_reasoning = thinks
        self._timeout_s = timeout
        self._drops_unsupported = drop_params
        self._params = params

    def dump_state(self) -> dict[str, Any]:
        """What makes an equal handle, for a saved program.

        DSPy loads it with `allow_unsafe_lm_state=True` only, since it imports this class by name.
        """
        return {
            "thinks": self.supports_reasoning,
            "timeout": self._timeout_s,
            "drop_params": self._drops_unsupported,
            **self._params,
        }

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> Self:
        """The handle of a saved program."""
        return cls(**state)

    def _start(self, request: lm15.Request, *, is_stream: bool) -> tuple[StartedCall, EventWriter]:
        """Have the engine take a request. Blocks; not for event loops."""
        from litellm_mlx.serve_call import start_call
        from litellm_mlx.translate.request import Call

        validate_request(request)
        registry = handler.registry
        timeout_s = self._timeout_s
        if timeout_s is None:
            timeout_s = registry.config.default_timeout_s
        messages, params = in_openai_shape(request)
        call = Call(
            messages=messages,
            params={**self._params, **params},
            is_raw=False,
            is_stream=is_stream,
            drops_unsupported=self._drops_unsupported,
            deadline_s=time.monotonic() + timeout_s,
        )
        started = start_call(registry, bare_name(request), call, registry.config)
        return started, EventWriter(request, started.facts)


class MLXEngine(EngineHandle):
    """Answers DSPy's requests in the calling thread, for `engine=`; see `EngineHandle`."""

    def complete(self, request: lm15.Request) -> lm15.Response:
        """One whole answer."""
        return lm15.materialize_response(self._events(request, is_stream=False), request)

    def stream(self, request: lm15.Request) -> Iterator[Any]:
        """The events of one answer; closing them early frees the row."""
        return self._events(request, is_stream=True)

    def close(self) -> None:
        """Do nothing: a handle holds nothing, see `litellm_mlx.unload`."""

    def _events(self, request: lm15.Request, *, is_stream: bool) -> Iterator[Any]:
        with typed_errors(request) as asked:
            started, writer = self._start(request, is_stream=is_stream)
            try:
                yield writer.start()
                for event in started.events:
                    for read in started.read(event, asked):
                        yield from writer.write(read)
            finally:
                started.close()


class AsyncMLXEngine(EngineHandle):
    """Answers on the event loop and never blocks it, for `async_engine=`; see `EngineHandle`."""

    async def complete(self, request: lm15.Request) -> lm15.Response:
        """One whole answer."""
        events = self._events(request, is_stream=False)
        return await lm15.amaterialize_response(events, request)

    def stream(self, request: lm15.Request) -> AsyncIterator[Any]:
        """The events of one answer; closing them early frees the row."""
        return self._events(request, is_stream=True)

    async def aclose(self) -> None:
        """Do nothing; see `MLXEngine.close`."""

    async def _events(self, request: lm15.Request, *, is_stream: bool) -> AsyncIterator[Any]:
        with typed_errors(request) as asked:
            start = partial(self._start, request, is_stream=is_stream)
            started, writer = await asyncio.to_thread(start)
            try:
                yield writer.start()
                async for event in started.events:
                    for read in started.read(event, asked):
                        for written in writer.write(read):
                            yield written
            finally:
                started.close()
