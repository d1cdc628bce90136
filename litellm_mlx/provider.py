"""`MLXProvider`: LiteLLM's entry points as thin adapters over one shared path.

Sync and async, stream and whole answer all go through `_start`; what follows only differs in how
events are awaited and what is made of them. The streaming entry points are plain functions that
start eagerly, so that errors surface at the call, where LiteLLM's fallbacks look for them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import litellm
from litellm.llms.custom_llm import CustomLLM
from litellm.types.utils import EmbeddingResponse, ModelResponse, ModelResponseStream

from litellm_mlx import network, observe
from litellm_mlx.config import EngineConfig
from litellm_mlx.errors import (
    BudgetError,
    ConstraintError,
    EngineError,
    LiteLLMMLXError,
    RequestError,
)
from litellm_mlx.translate.embedding import EmbeddingCall, embedding_response
from litellm_mlx.translate.response import (
    AnswerBuilder,
    AnswerFacts,
    ChunkBuilder,
    to_litellm_error,
)
from litellm_mlx.types import Done, Event

if TYPE_CHECKING:
    from litellm_mlx.engine.checked import Events
    from litellm_mlx.engine.embedding import EmbeddingEngine, EmbeddingRequest
    from litellm_mlx.engine.engine import Engine
    from litellm_mlx.models.loader import LoadedModel
    from litellm_mlx.models.registry import Lease, ModelRegistry
    from litellm_mlx.translate.read_answer import AnswerReader
    from litellm_mlx.translate.request import PreparedRequest
    from litellm_mlx.types import Tier


@dataclass(frozen=True, slots=True)
class _Started:
    """A request that the engine has accepted: its events, and how its answer is to look."""

    n: int
    events: Events
    reader: AnswerReader
    facts: AnswerFacts
    lease: Lease[
        Engine[LoadedModel]
    ]  # the model stays in memory until this is released, or dropped with the answer

    def read(self, event: Event) -> Iterable[Event]:
        """What an event of the engine's is to the caller; its last one is noted."""
        if isinstance(event, Done):
            observe.note(observe.Answered(self.facts.model, self.facts.tier, event))
        return self.reader.read(event)


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
        with _typed_errors(call["model"]):
            started = self._start(call, is_stream=False)
            builder = AnswerBuilder(started.n)
            with started.lease:
                for event in started.events:
                    for read in started.read(event):
                        builder.add(read)
            return builder.fill(call["model_response"], started.facts)

    async def acompletion(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """One whole answer; nothing blocks the event loop."""
        call = _bind(*args, **kwargs)
        with _typed_errors(call["model"]):
            start = functools.partial(self._start, call, is_stream=False)
            started = await asyncio.to_thread(start)
            builder = AnswerBuilder(started.n)
            with started.lease:
                async for event in started.events:
                    for read in started.read(event):
                        builder.add(read)
            return builder.fill(call["model_response"], started.facts)

    def streaming(self, *args: Any, **kwargs: Any) -> Iterator[ModelResponseStream]:  # type: ignore[override]  # LiteLLM's annotation is narrower than what it takes
        """Deltas, waiting in the calling thread."""
        call = _bind(*args, **kwargs)
        with _typed_errors(call["model"]):
            return _chunks(self._start(call, is_stream=True))

    def astreaming(self, *args: Any, **kwargs: Any) -> AsyncIterator[ModelResponseStream]:  # type: ignore[override]  # as above
        """Deltas on the event loop. LiteLLM runs this call itself in an executor thread."""
        call = _bind(*args, **kwargs)
        with _typed_errors(call["model"]):
            return _achunks(self._start(call, is_stream=True))

    def embedding(self, *args: Any, **kwargs: Any) -> EmbeddingResponse:
        """Vectors of texts, waiting in the calling thread."""
        call = _bind_embedding(*args, **kwargs)
        with _typed_errors(call["model"]):
            wanted, request, lease = self._start_embedding(call)
            with lease:
                vectors = wanted.shortened(request.result())
            return embedding_response(
                call["model_response"], call["model"], vectors, request.num_tokens
            )

    async def aembedding(self, *args: Any, **kwargs: Any) -> EmbeddingResponse:
        """Vectors of texts; nothing blocks the event loop."""
        call = _bind_embedding(*args, **kwargs)
        with _typed_errors(call["model"]):
            wanted, request, lease = await asyncio.to_thread(self._start_embedding, call)
            with lease:
                vectors = wanted.shortened(await request.aresult())
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
        lease = self.registry.lease_embedder(call["model"])
        try:
            model = lease.engine.model(timeout_s=max(deadline_s - time.monotonic(), 0))
            request = lease.engine.submit(wanted.texts_for(model), deadline_s=deadline_s)
        except BaseException:
            lease.release()  # the error's traceback would keep it
            raise
        return wanted, request, lease

    def _start(self, call: Mapping[str, Any], *, is_stream: bool) -> _Started:
        """Load the model if need be, translate, compile, submit. Blocks; not for event loops."""
        config = self.registry.config
        if network.is_from_network(call.get("litellm_params") or {}):
            network.own_models()
            network.check_model(call["model"], config)
            network.check_size(call["optional_params"], config)
            config = network.client_config(config)
        lease = self.registry.lease(call["model"])
        try:
            return self._start_on(lease, call, config, is_stream=is_stream)
        except BaseException:
            lease.release()  # the error's traceback would keep it
            raise

    def _start_on(
        self,
        lease: Lease[Engine[LoadedModel]],
        call: Mapping[str, Any],
        config: EngineConfig,
        *,
        is_stream: bool,
    ) -> _Started:
        from litellm_mlx.translate.read_answer import AnswerReader
        from litellm_mlx.translate.request import Call, build_request

        deadline_s = time.monotonic() + self._timeout_s(call.get("timeout"))
        litellm_params = call.get("litellm_params") or {}
        engine = lease.engine
        model = engine.model(timeout_s=max(deadline_s - time.monotonic(), 0))
        api_call = Call(
            messages=call["messages"],
            params=call["optional_params"],
            is_raw=litellm_params.get("text_completion") is True,
            is_stream=is_stream,
            drops_unsupported=bool(litellm.drop_params or litellm_params.get("drop_params")),
            deadline_s=deadline_s,
        )
        prepared = build_request(api_call, model, config)
        try:
            tier, events = _submit(engine, prepared, config)
        except (BudgetError, ConstraintError):
            if not prepared.repairs:
                raise
            # A repair is ours: where it cannot be enforced, the request counts as it was sent.
            as_sent = dataclasses.replace(api_call, repairs_prompt=False)
            prepared = build_request(as_sent, model, config)
            tier, events = _submit(engine, prepared, config)
        facts = AnswerFacts(
            model=call["model"],
            fingerprint=model.fingerprint,
            wants_logprobs=prepared.generation.num_top_logprobs is not None,
            tier=tier,
            repairs=prepared.repairs,
            budget_finish_reason=prepared.budget_finish_reason,
            is_function_call=prepared.tools is not None and prepared.tools.is_function_call,
        )
        n = prepared.generation.n
        return _Started(n, events, AnswerReader(prepared.tools, n), facts, lease)

    def _timeout_s(self, timeout: Any) -> float:
        """LiteLLM's timeout in seconds; an httpx.Timeout counts by its read value."""
        seconds = getattr(timeout, "read", timeout)
        return float(seconds) if seconds is not None else self.registry.config.default_timeout_s


def _submit(
    engine: Engine[LoadedModel], prepared: PreparedRequest, config: EngineConfig
) -> tuple[Tier | None, Events]:
    """Hand a request to the engine, with the check that its constraint needs around it."""
    from litellm_mlx.engine.checked import CheckedEvents

    request, tools = prepared.generation, prepared.tools
    if request.constraint is None:
        return None, engine.submit(request)
    index = engine.index(request.constraint)
    checks = [index.check] if index.tier == "grammar+check" else []
    if tools is not None and tools.needs_check:
        checks.append(tools.check)
    if not checks:
        return "grammar", engine.submit(request)

    def check(text: str) -> str | None:
        return next((problem for check in checks if (problem := check(text))), None)

    return "grammar+check", CheckedEvents(request, engine.submit, check, config.max_tries)


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


class _typed_errors:  # reads as a statement
    """Let nothing but LiteLLM's exceptions out: it retries all others, four generations deep."""

    def __init__(self, model: str) -> None:
        self._model = model

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception):
            observe.note_error(self._model, error)
        if isinstance(error, LiteLLMMLXError):
            raise to_litellm_error(error, self._model) from error
        if isinstance(error, Exception):
            wrapped = EngineError(f"unexpected {type(error).__name__}: {error}")
            raise to_litellm_error(wrapped, self._model) from error


def _chunks(started: _Started) -> Iterator[ModelResponseStream]:
    builder = ChunkBuilder(started.facts)
    with _typed_errors(started.facts.model):
        try:
            for event in started.events:
                for read in started.read(event):
                    yield from builder.chunks(read)
        finally:
            started.events.close()
            started.lease.release()


async def _achunks(started: _Started) -> AsyncIterator[ModelResponseStream]:
    builder = ChunkBuilder(started.facts)
    with _typed_errors(started.facts.model):
        try:
            async for event in started.events:
                for read in started.read(event):
                    for chunk in builder.chunks(read):
                        yield chunk
        finally:
            started.events.close()
            started.lease.release()
