"""Texts to vectors, on a thread of the model's own; concurrent requests share forward passes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from litellm_mlx.config import EngineConfig
from litellm_mlx.engine.engine import EngineStats
from litellm_mlx.engine.thread import ModelThread
from litellm_mlx.errors import LiteLLMMLXError, RequestTimeoutError

if TYPE_CHECKING:
    from litellm_mlx.engine.worker import LiveRow

Vectors = NDArray[np.float32]

# Of one forward pass, padding included. A core is fastest with few (MiniLM, 256 texts of 35 tokens:
# 49 texts/s with 512, 45 with 2,048, 36 with 8,192, benchmarks/RESULTS.md); accelerators want more.
MAX_TOKENS_PER_PASS = 2048
# Texts that are sorted by length together, so that a pass pads little; later ones wait for them.
_WINDOW = 512


class Embedder(Protocol):
    """A model in memory that makes vectors."""

    @property
    def dimensions(self) -> int:
        """Of each vector."""

    @property
    def prompts(self) -> Mapping[str, str]:
        """Texts that it was trained to find before others, by name."""

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, with what the model puts around it. Any thread may call."""

    def forward(self, batch: Sequence[Sequence[int]]) -> Vectors:
        """Vectors of length 1, (B, dimensions), of B tokenized texts. On the model's thread."""

    def finish_device_work(self) -> None:
        """Wait until MLX is idle."""


@dataclass(slots=True, eq=False)
class EmbeddingRequest:
    """Texts that a caller wants the vectors of; `future` gives them, (number of texts, D)."""

    token_ids: list[list[int]]
    deadline_s: float | None
    future: Future[Vectors] = field(default_factory=Future)
    accepted_s: float | None = None
    vectors: dict[int, Vectors] = field(default_factory=dict)

    @property
    def num_tokens(self) -> int:
        """Of all texts."""
        return sum(map(len, self.token_ids))

    @property
    def is_wanted(self) -> bool:
        """Somebody waits for it still."""
        return not self.future.done()

    def add(self, index: int, vector: Vectors) -> None:
        """Take in the vector of a text; the last one ends the request."""
        self.vectors[index] = vector
        if len(self.vectors) == len(self.token_ids):
            stacked = np.stack([self.vectors[index] for index in range(len(self.token_ids))])
            with contextlib.suppress(InvalidStateError):  # the caller left meanwhile
                self.future.set_result(stacked)

    def fail(self, error: LiteLLMMLXError) -> None:
        """Tell the caller that nothing will come."""
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)

    def result(self) -> Vectors:
        """Wait in the calling thread.

        Raises:
            RequestTimeoutError: the deadline passed; what is left of it is not computed.
            EngineError: the engine failed or was shut down.
        """
        left_s = None if self.deadline_s is None else max(self.deadline_s - time.monotonic(), 0)
        try:
            return self.future.result(left_s)
        except FutureTimeoutError:
            raise self._timed_out() from None
        finally:
            self.future.cancel()

    async def aresult(self) -> Vectors:
        """As `result`, on an event loop. Cancelling the task frees what is left of it."""
        left_s = None if self.deadline_s is None else max(self.deadline_s - time.monotonic(), 0)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(self.future), left_s)
        except TimeoutError:
            raise self._timed_out() from None

    def _timed_out(self) -> RequestTimeoutError:
        done, wanted = len(self.vectors), len(self.token_ids)
        return RequestTimeoutError(f"{done:,} of {wanted:,} texts were embedded before `timeout`")


@dataclass(frozen=True, slots=True, eq=False)
class _Text:
    request: EmbeddingRequest
    index: int

    @property
    def token_ids(self) -> list[int]:
        return self.request.token_ids[self.index]


class EmbeddingWorker:
    """Runs the model over whatever texts wait, a part at a time. Owned by the engine's thread."""

    def __init__(self, model: Embedder) -> None:
        self._model = model
        self._waiting: deque[_Text] = deque()
        self._window: list[_Text] = []  # shortest first
        self._requests: list[EmbeddingRequest] = []

    @property
    def is_idle(self) -> bool:
        """No text waits."""
        return not self._waiting and not self._window

    @property
    def num_waiting(self) -> int:
        """Requests that are not finished."""
        return len(self._requests)

    def add(self, request: EmbeddingRequest, /) -> None:
        """Take in a request."""
        self._requests.append(request)
        self._waiting.extend(_Text(request, index) for index in range(len(request.token_ids)))

    def step(self) -> None:
        """One forward pass."""
        if not self._window:
            taken = [self._waiting.popleft() for _ in range(min(_WINDOW, len(self._waiting)))]
            self._window = sorted(taken, key=lambda text: len(text.token_ids))
        self._window = [text for text in self._window if text.request.is_wanted]
        if self._window:
            batch = self._take_batch()
            vectors = self._model.forward([text.token_ids for text in batch])
            for text, vector in zip(batch, vectors, strict=True):
                text.request.add(text.index, vector)
        self._requests = [request for request in self._requests if request.is_wanted]

    def fail(self, error: LiteLLMMLXError) -> None:
        """End every request with an error."""
        for request in self._requests:
            request.fail(error)
        self._requests.clear()
        self._window.clear()
        self._waiting.clear()

    def finish_device_work(self) -> None:
        """Wait until MLX is idle."""
        self._model.finish_device_work()

    def _take_batch(self) -> list[_Text]:
        """The longest texts, as many as a pass takes; at least one."""
        width = len(self._window[-1].token_ids)
        num_rows = max(MAX_TOKENS_PER_PASS // max(width, 1), 1)
        batch = self._window[-num_rows:]
        del self._window[-num_rows:]
        return batch


class EmbeddingEngine(ModelThread[Embedder, EmbeddingWorker, EmbeddingRequest]):
    """One model that makes vectors, on a thread of its own.

    Args:
        load: called on the engine's thread; gives the model.
        config: how to run.
        name: of the model, for the thread's name and for messages.
    """

    def __init__(self, load: Callable[[], Embedder], config: EngineConfig, *, name: str) -> None:
        super().__init__(load, EmbeddingWorker, name=name, max_queued=config.max_queued)

    def submit(self, texts: Sequence[str], *, deadline_s: float | None = None) -> EmbeddingRequest:
        """Queue texts; tokenizes them on the calling thread.

        Args:
            texts: at least one.
            deadline_s: on the monotonic clock.

        Raises:
            PromptTooLongError: one is longer than the model takes.
            OverloadedError: too many requests wait already.
            EngineError: the engine has failed or was shut down.
        """
        request = EmbeddingRequest(self.model().tokenize(texts), deadline_s)
        self._accept(request, 1)
        return request

    def stats(self) -> EngineStats:
        """What waits here."""
        return EngineStats(num_waiting=self._num_waiting())

    def live(self) -> list[LiveRow]:
        """No completion is ever written here."""
        return []
