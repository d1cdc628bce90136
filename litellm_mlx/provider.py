"""`MLXProvider`: LiteLLM's entry points as thin adapters over one shared path.

Sync and async, stream and whole answer all go through `_start`; what follows only differs in how
events are awaited and what is made of them. What a call is to the engine is `serve_call`'s.
The streaming entry points are plain functions that start eagerly, so that errors surface at the
call, where LiteLLM's fallbacks look for them.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import litellm
from litellm.llms.custom_llm import CustomLLM
from litellm.types.utils import EmbeddingResponse, ModelResponse, ModelResponseStream

from litellm_mlx import network, observe
from litellm_mlx.config import EngineConfig
from litellm_mlx.errors import EngineError, LiteLLMMLXError, RequestError
from litellm_mlx.translate.embedding import EmbeddingCall
from litellm_mlx.translate.response import (
    AnswerBuilder,
    ChunkBuilder,
    embedding_response,
    to_litellm_error,
)

if TYPE_CHECKING:
    from litellm_mlx.engine.embedding import EmbeddingEngine, EmbeddingRequest
    from litellm_mlx.models.registry import Lease, ModelRegistry
    from litellm_mlx.serve_call import StartedCall


class MLXProvider(CustomLLM):
    """The `mlx/` provider. One instance serves any number of threads and event loops.

    Args:
        config: settings of its engines; read from `LITELLM_MLX_*` variables at the first call when
            not given.
    """

    def __init__(self, config: EngineConfig | None = None) -> None:
        super().__init__()
        self._config = config
        self._registry: ModelRegistry | None = None
        self._lock = threading.Lock()

    @property
    def registry(self) -> ModelRegistry:
        """The engines of this provider, made at first use because that imports MLX."""
        with self._lock:
            if self._registry is None:
                from litellm_mlx.models.registry import ModelRegistry

                self._registry = ModelRegistry(self._config or _config_from_env())
            return self._registry

    @property
    def registry_if_used(self) -> ModelRegistry | None:
        """The engines, or `None` while nothing has been asked of the provider."""
        return self._registry

    def completion(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """One whole answer, waiting in the calling thread."""
        call = _bind(*args, **kwargs)
        with _typed_errors(_asked(call)) as asked:
            started = self._start(call, is_stream=False)
            builder = AnswerBuilder(started.n)
            with started.lease:
                for event in started.events:
                    for read in started.read(event, asked):
                        builder.add(read)
            return builder.fill(call["model_response"], started.facts)

    async def acompletion(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """One whole answer; nothing blocks the event loop."""
        call = _bind(*args, **kwargs)
        with _typed_errors(_asked(call)) as asked:
            start = functools.partial(self._start, call, is_stream=False)
            started = await asyncio.to_thread(start)
            builder = AnswerBuilder(started.n)
            with started.lease:
                async for event in started.events:
                    for read in started.read(event, asked):
                        builder.add(read)
            return builder.fill(call["model_response"], started.facts)

    def streaming(self, *args: Any, **kwargs: Any) -> Iterator[ModelResponseStream]:  # type: ignore[override]  # LiteLLM's annotation is narrower than what it takes
        """Deltas, waiting in the calling thread."""
        call = _bind(*args, **kwargs)
        with _typed_errors(_asked(call)) as asked:
            return _chunks(self._start(call, is_stream=True), asked)

    def astreaming(self, *args: Any, **kwargs: Any) -> AsyncIterator[ModelResponseStream]:  # type: ignore[override]  # as above
        """Deltas on the event loop. LiteLLM runs this call itself in an executor thread."""
        call = _bind(*args, **kwargs)
        with _typed_errors(_asked(call)) as asked:
            return _achunks(self._start(call, is_stream=True), asked)

    def embedding(self, *args: Any, **kwargs: Any) -> EmbeddingResponse:
        """Vectors of texts, waiting in the calling thread."""
        call = _bind_embedding(*args, **kwargs)
        with _typed_errors(_asked(call)) as asked:
            wanted, request, lease = self._start_embedding(call)
            with lease:
                vectors = wanted.shortened(request.result())
            asked.embedded(len(vectors), request.num_tokens)
            return embedding_response(
                call["model_response"], call["model"], vectors, request.num_tokens
            )

    async def aembedding(self, *args: Any, **kwargs: Any) -> EmbeddingResponse:
        """Vectors of texts; nothing blocks the event loop."""
        call = _bind_embedding(*args, **kwargs)
        with _typed_errors(_asked(call)) as asked:
            wanted, request, lease = await asyncio.to_thread(self._start_embedding, call)
            with lease:
                vectors = wanted.shortened(await request.aresult())
            asked.embedded(len(vectors), request.num_tokens)
            return embedding_response(
                call["model_response"], call["model"], vectors, request.num_tokens
            )

    def _start_embedding(
        self, call: Mapping[str, Any]
    ) -> tuple[EmbeddingCall, EmbeddingRequest, Lease[EmbeddingEngine]]:
        """Load the model if need be, and submit. Blocks; not for event loops."""
        litellm_params = call.get("litellm_params") or {}
        if network.is_from_network(litellm_params):
            network.own_models()
            network.check_model(call["model"], self.registry.config)
        drops_unknown = bool(litellm.drop_params or litellm_params.get("drop_params"))
        wanted = EmbeddingCall.of(
            call["input"], call["optional_params"], drops_unknown=drops_unknown
        )
        deadline_s = time.monotonic() + self._timeout_s(call.get("timeout"))
        lease = self.registry.lease_embedder(network.served(call["model"]).model)
        try:
            model = lease.engine.model(timeout_s=max(deadline_s - time.monotonic(), 0))
            request = lease.engine.submit(wanted.texts_for(model), deadline_s=deadline_s)
        except BaseException:
            lease.release()  # the error's traceback would keep it
            raise
        return wanted, request, lease

    def _start(self, call: Mapping[str, Any], *, is_stream: bool) -> StartedCall:
        """Have the engine take a call. Blocks; not for event loops."""
        from litellm_mlx.serve_call import start_call
        from litellm_mlx.translate.request import Call

        config = self.registry.config
        litellm_params = call.get("litellm_params") or {}
        is_from_network = network.is_from_network(litellm_params)
        if is_from_network:
            network.own_models()
            network.check_model(call["model"], config)
            network.check_size(call["optional_params"], config)
            config = network.client_config(config)
        served = network.served(call["model"])
        api_call = Call(
            messages=call["messages"],
            params=call["optional_params"],
            is_raw=litellm_params.get("text_completion") is True,
            is_stream=is_stream,
            drops_unsupported=bool(litellm.drop_params or litellm_params.get("drop_params")),
            deadline_s=time.monotonic() + self._timeout_s(call.get("timeout")),
            takes_hints=is_from_network and config.client_hints,
        )
        return start_call(self.registry, served.model, api_call, config, shown_as=served.name)

    def _timeout_s(self, timeout: Any) -> float:
        """LiteLLM's timeout in seconds; an httpx.Timeout counts by its read value."""
        seconds = getattr(timeout, "read", timeout)
        return float(seconds) if seconds is not None else self.registry.config.default_timeout_s


def _config_from_env() -> EngineConfig:
    try:
        return EngineConfig.from_env()
    except ValueError as error:
        raise RequestError(str(error)) from error


def _bind(model: str, messages: list[Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """LiteLLM passes keywords; only the first two may come by position."""
    if args:
        raise TypeError("pass everything after `messages` by keyword")
    return {"model": model, "messages": messages, **kwargs}


def _bind_embedding(model: str, input: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """As `_bind`, of an embedding call."""
    if args:
        raise TypeError("pass everything after `input` by keyword")
    return {"model": model, "input": input, **kwargs}


def _asked(call: Mapping[str, Any]) -> observe.Asked:
    return observe.Asked(network.served(call["model"]).model, call.get("litellm_params") or {})


class _typed_errors:  # reads as a statement
    """Let nothing but LiteLLM's exceptions out: it retries all others, four generations deep."""

    def __init__(self, asked: observe.Asked) -> None:
        self._asked = asked

    def __enter__(self) -> observe.Asked:
        return self._asked

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if error is not None:
            self._asked.failed(error)
        if isinstance(error, LiteLLMMLXError):
            raise to_litellm_error(error, self._asked.model) from error
        if isinstance(error, Exception):
            wrapped = EngineError(f"unexpected {type(error).__name__}: {error}")
            raise to_litellm_error(wrapped, self._asked.model) from error


def _chunks(started: StartedCall, asked: observe.Asked) -> Iterator[ModelResponseStream]:
    builder = ChunkBuilder(started.facts)
    with _typed_errors(asked):
        try:
            for event in started.events:
                for read in started.read(event, asked):
                    yield from builder.chunks(read)
        finally:
            started.close()


async def _achunks(
    started: StartedCall, asked: observe.Asked
) -> AsyncIterator[ModelResponseStream]:
    builder = ChunkBuilder(started.facts)
    with _typed_errors(asked):
        try:
            async for event in started.events:
                for read in started.read(event, asked):
                    for chunk in builder.chunks(read):
                        yield chunk
        finally:
            started.close()
