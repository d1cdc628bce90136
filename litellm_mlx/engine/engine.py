"""Thread-safe handle of one model's engine: load, submit, cancel, shut down."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from litellm_mlx.config import EngineConfig
from litellm_mlx.engine.model import ServedModel
from litellm_mlx.engine.stream import Channel, EventStream
from litellm_mlx.errors import (
    EngineError,
    EngineStoppedError,
    LiteLLMMLXError,
    OverloadedError,
    RequestTimeoutError,
)
from litellm_mlx.grammar.index_cache import IndexCache
from litellm_mlx.types import Constraint, GenerationRequest

if TYPE_CHECKING:
    from litellm_mlx.engine.budget import Budget
    from litellm_mlx.engine.sequence import RunningRequest, Sequence
    from litellm_mlx.engine.worker import LiveRow, Worker
    from litellm_mlx.grammar.compiler import Index
    from litellm_mlx.grammar.guide import Guide
    from litellm_mlx.grammar.runaway import StringWatch

logger = logging.getLogger("litellm_mlx")

ModelT = TypeVar("ModelT", bound=ServedModel)
T = TypeVar("T")

_WAKE_UP = None
# A step of a large model on a slow CPU; past it the process exits anyway.
_SHUTDOWN_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine holds now, and what it has done since it started.

    `num_passes` counts forward passes of decoding, over however many rows; forced tokens are the
    completion tokens that were taken without asking the model. Guessed ones went through it, see
    `lookup`, and those that were right came of no pass of their own; a forced token inside a guess
    counts among both.
    """

    num_live: int = 0
    num_waiting: int = 0
    num_steps: int = 0
    kv_bytes: int = 0
    prefix_bytes: int = 0
    num_passes: int = 0
    num_prefilled_tokens: int = 0
    num_completion_tokens: int = 0
    num_forced_tokens: int = 0
    num_guessed_tokens: int = 0
    num_right_guesses: int = 0


class _Call:
    """A function that another thread wants run on the engine's."""

    def __init__(self, function: Callable[[Worker], Any]) -> None:
        self._function = function
        self.future: Future[Any] = Future()

    def run(self, worker: Worker) -> None:
        try:
            self.future.set_result(self._function(worker))
        except Exception as error:  # whoever asked for it gets it, and the requests go on
            self.future.set_exception(error)


class Engine(Generic[ModelT]):
    """One model on a thread of its own, which does all of its MLX work.

    The thread starts at once and loads the model first. When it fails it ends every accepted
    request with an error and `is_alive` turns false: make a new engine then.

    Args:
        load: called on the engine's thread; gives the model.
        config: how to run.
        name: of the model, for the thread's name and for messages.
    """

    def __init__(self, load: Callable[[], ModelT], config: EngineConfig, *, name: str) -> None:
        self._load = load
        self._config = config
        self._name = name
        self._inbox: queue.SimpleQueue[RunningRequest | _Call | None] = queue.SimpleQueue()
        self._loaded: Future[ModelT] = Future()
        self._indexes = IndexCache()
        self._worker: Worker | None = None
        self._lock = threading.Lock()
        self._error: LiteLLMMLXError | None = None
        self._is_stopping = False
        self._parks = False
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"litellm-mlx {name}", daemon=True)
        _live_engines.add(self)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """The engine takes requests, or will once the model is loaded."""
        return self._error is None and not self._is_stopping

    def model(self, timeout_s: float | None = None) -> ModelT:
        """Wait until the model is loaded and return it.

        Raises:
            ModelNotFoundError, ModelLoadError: it cannot be loaded.
            RequestTimeoutError: it is still loading after `timeout_s`; loading goes on.
        """
        try:
            return self._loaded.result(timeout_s)
        except FutureTimeoutError:
            raise RequestTimeoutError(
                f"model {self._name!r} is still loading; raise `timeout`, or load it ahead with "
                f"litellm_mlx.load({self._name!r})"
            ) from None

    @property
    def model_if_loaded(self) -> ModelT | None:
        """The model, or `None` while it loads or when it could not be loaded."""
        is_ready = self._loaded.done() and self._loaded.exception() is None
        return self._loaded.result() if is_ready else None

    def submit(self, request: GenerationRequest) -> EventStream:
        """Queue a request. Compiles its constraint first, on the calling thread.

        Raises:
            ConstraintError: the constraint cannot be compiled.
            BudgetError: `max_tokens` has no room for the shortest text that satisfies it.
            KVBudgetError: its layer caches can never fit in memory.
            OverloadedError: too many requests wait already.
            EngineError: the engine has failed or was shut down.
        """
        from litellm_mlx.engine.sequence import RunningRequest

        loaded = self.model()
        worker = self._worker
        if worker is not None:
            worker.budget.refuse_what_never_fits(request)
        running = RunningRequest(request, Channel())
        running.sequences = self._make_sequences(running, loaded)
        self._accept(running)
        return EventStream(running.channel, request.deadline_s, self._wake)

    def index(self, constraint: Constraint) -> Index:
        """The compiled constraint; compiles it on the calling thread unless it is cached.

        Raises:
            ConstraintError: it cannot be compiled.
        """
        return self._indexes.get(constraint, self.model().vocabulary)

    def stats(self) -> EngineStats:
        """What the engine holds now; a reading between two steps may be one step old."""
        worker = self._worker
        if worker is None:
            return EngineStats(num_waiting=self._num_waiting())
        counts = worker.counts
        return EngineStats(
            num_live=worker.num_live,
            num_waiting=self._num_waiting(),
            num_steps=counts.num_steps,
            kv_bytes=worker.kv_bytes,
            prefix_bytes=worker.prefix_bytes,
            num_passes=counts.num_passes,
            num_prefilled_tokens=counts.num_prefilled_tokens,
            num_completion_tokens=counts.num_completion_tokens,
            num_forced_tokens=counts.num_forced_tokens,
            num_guessed_tokens=counts.num_guessed_tokens,
            num_right_guesses=counts.num_right_guesses,
        )

    def live(self) -> list[LiveRow]:
        """The completions in the batch now."""
        worker = self._worker
        return worker.live() if worker is not None else []

    def call(self, function: Callable[[Worker], T]) -> T:
        """Run a function on the engine's thread, between two steps, and return what it returns.

        Raises:
            EngineError: the engine has failed or was shut down.
            Exception: whatever the function raises; the engine goes on.
        """
        self.model()
        call = _Call(function)
        with self._lock:
            if self._error is not None:
                raise self._error
            self._inbox.put(call)
        result: T = call.future.result()
        return result

    def notify(self, function: Callable[[Worker], Any]) -> None:
        """Have a function run as `call` does, without waiting; not once the engine has ended."""
        with self._lock:
            if self._error is None:
                self._inbox.put(_Call(function))

    def shutdown(self, timeout_s: float = _SHUTDOWN_TIMEOUT_S) -> None:
        """Stop after the current step; requests that still run get an `EngineStoppedError`."""
        self._stop()
        self._is_closed.wait(timeout_s)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)
            _wait_until_gone(self._thread.native_id)

    def park(self, timeout_s: float = _SHUTDOWN_TIMEOUT_S) -> None:
        """Shut down for the end of the process: as `shutdown`, but the thread stays, asleep.

        A thread that ends runs MLX's thread-local destructors, which want the interpreter; when it
        is being torn down meanwhile, the process aborts. Seen with MLX 0.32.4, Python 3.11.
        """
        self._parks = True
        self._stop()
        self._is_closed.wait(timeout_s)

    def _stop(self) -> None:
        self._is_stopping = True
        self._wake()

    def _make_sequences(self, running: RunningRequest, loaded: ModelT) -> list[Sequence]:
        """The completions of a request, before their first tokens."""
        from litellm_mlx.engine.budget import Budget
        from litellm_mlx.grammar.closing import first_ending
        from litellm_mlx.grammar.runaway import StringLimits, StringWatch
        from litellm_mlx.grammar.thinking import ThinkingGuide

        request, vocabulary = running.request, loaded.vocabulary
        constraint = request.constraint
        index = None if constraint is None else self._indexes.get(constraint, vocabulary)
        made = []
        for number in range(request.n):
            guide = None if index is None else index.guide()
            if request.thinking is not None:
                guide = ThinkingGuide(guide, request.thinking, vocabulary)
            budget = strings = None
            if index is not None and constraint is not None and guide is not None:
                ending = first_ending(index, constraint, limit=request.max_tokens)
                budget = Budget(guide, constraint, request.max_tokens, ending)
                limits = StringLimits.of(self._config)
                strings = StringWatch(limits, constraint, vocabulary)
            made.append(
                _make_sequence(
                    running,
                    number,
                    loaded,
                    guide,
                    budget,
                    strings,
                    fast_forwards=self._config.fast_forward,
                    looks_up=self._config.prompt_lookup,
                )
            )
        return made

    def _accept(self, running: RunningRequest) -> None:
        num_new = len(running.sequences)
        with self._lock:  # so that a request is either refused here or seen by the closing thread
            if self._error is not None:
                raise self._error
            num_queued = self._num_waiting()
            if num_queued + num_new > self._config.max_queued:
                raise OverloadedError(
                    f"{num_queued} requests wait for {self._name!r} already and the limit is "
                    f"{self._config.max_queued}; try again later or raise "
                    "LITELLM_MLX_MAX_QUEUED"
                )
            running.accepted_s = time.monotonic()
            self._inbox.put(running)

    def _num_waiting(self) -> int:
        worker = self._worker
        return self._inbox.qsize() + (worker.num_waiting if worker is not None else 0)

    def _wake(self) -> None:
        self._inbox.put(_WAKE_UP)

    # on the engine's thread -------------------------------------------------------------------

    def _run(self) -> None:
        worker: Worker | None = None
        error: LiteLLMMLXError = EngineStoppedError(
            f"the engine of {self._name!r} was shut down before the request ended"
        )
        try:
            loaded = self._load()  # chooses a BLAS, so nothing may import MLX before it
            from litellm_mlx.engine.worker import Worker

            self._worker = worker = Worker(loaded, self._config)
            self._loaded.set_result(loaded)
            self._serve(worker)
        except LiteLLMMLXError as refused:
            error = refused
        except Exception as failed:
            logger.exception("the engine of %s failed", self._name)
            error = _failure(failed)
        self._close(worker, error)
        self._is_closed.set()
        if self._parks:
            threading.Event().wait()

    def _serve(self, worker: Worker) -> None:
        while not self._is_stopping:
            self._drain_inbox(worker)
            if not worker.is_idle:
                worker.step()

    def _drain_inbox(self, worker: Worker) -> None:
        """Take what has come; wait for something when there is nothing to do."""
        must_wait = worker.is_idle
        while True:
            try:
                item = self._inbox.get(block=must_wait)
            except queue.Empty:
                return
            must_wait = False
            if isinstance(item, _Call):
                item.run(worker)
            elif item is not _WAKE_UP:
                worker.add(item)

    def _close(self, worker: Worker | None, error: LiteLLMMLXError) -> None:
        """Refuse new requests and end every accepted one."""
        with self._lock:
            self._error = error
        if not self._loaded.done():
            self._loaded.set_exception(error)
        while not self._inbox.empty():
            item = self._inbox.get()
            if isinstance(item, _Call):
                item.future.set_exception(error)
            elif item is not _WAKE_UP:
                item.channel.put(error)
        if worker is not None:
            worker.fail(error)
            # MLX's own threads must be idle when the interpreter tears them down.
            with contextlib.suppress(Exception):
                worker.finish_device_work()
        self._worker = None


_live_engines: weakref.WeakSet[Engine[Any]] = weakref.WeakSet()


def _wait_until_gone(native_id: int | None, timeout_s: float = 1.0) -> None:
    """Wait for the end of a joined thread's destructors, where the system shows them (Linux)."""
    task = Path(f"/proc/self/task/{native_id}")
    deadline_s = time.monotonic() + timeout_s
    while task.exists() and time.monotonic() < deadline_s:
        time.sleep(0.002)


def _failure(error: Exception) -> EngineError:
    """What callers are told when the engine's own code failed."""
    wrapped = EngineError(
        f"the engine failed while it served the request ({type(error).__name__}: {error}); "
        "the next request starts a new one"
    )
    wrapped.__cause__ = error
    return wrapped


def _make_sequence(
    running: RunningRequest,
    index: int,
    model: ServedModel,
    guide: Guide | None,
    budget: Budget | None = None,
    strings: StringWatch | None = None,
    *,
    fast_forwards: bool = True,
    looks_up: bool = False,
) -> Sequence:
    """One completion of a request, before its first token."""
    from litellm_mlx.engine.sequence import Sequence
    from litellm_mlx.engine.text import TextDecoder

    request, vocabulary = running.request, model.vocabulary
    decoder = TextDecoder(
        stop=request.stop,
        # Inside constrained text a marker is the caller's data.
        thinking_markers=model.thinking_markers if guide is None else None,
        opens_reasoning=request.opens_reasoning,
        trims_leading_space=model.trims_leading_space and guide is None,
    )
    return Sequence(
        running,
        index,
        guide=guide,
        decoder=decoder,
        token_bytes=vocabulary.token_bytes,
        stop_token_ids=frozenset(vocabulary.stop_token_ids),
        budget=budget,
        strings=strings,
        fast_forwards=fast_forwards,
        looks_up=looks_up,
    )


def park_all() -> None:
    """Stop every engine of this process at interpreter exit; nothing may run after it."""
    for engine in list(_live_engines):
        engine.park()
