"""A thread of its own for each model, which does all of its MLX work: load, take in, step, end.

MLX's streams belong to threads, so callers hand over what they want and wait. What a worker does
with it, generating or embedding, is its own affair.
"""

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
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from litellm_mlx.engine.heap import give_back_free_memory
from litellm_mlx.errors import (
    EngineError,
    EngineStoppedError,
    LiteLLMMLXError,
    ModelLoadError,
    OverloadedError,
    RequestTimeoutError,
)

logger = logging.getLogger("litellm_mlx")

_WAKE_UP = None
# A step of a large model on a slow CPU; past it the process exits anyway.
_SHUTDOWN_TIMEOUT_S = 10.0
# Longer than the pauses of a program that works.
_TIDY_AFTER_S = 1.0


class Item(Protocol):
    """What callers hand over."""

    accepted_s: float | None  # on the monotonic clock

    def fail(self, error: LiteLLMMLXError) -> None:
        """Tell whoever waits for it that nothing will come."""


ItemT = TypeVar("ItemT", bound=Item)
ContraItemT = TypeVar("ContraItemT", bound=Item, contravariant=True)


class StepWorker(Protocol[ContraItemT]):
    """What runs on the thread."""

    @property
    def is_idle(self) -> bool:
        """There is nothing to step."""

    @property
    def num_waiting(self) -> int:
        """Items that it has taken in and not begun."""

    def add(self, item: ContraItemT, /) -> None:
        """Take in an item."""

    def step(self) -> None:
        """Do a part of the work, short enough for new items to wait for."""

    def fail(self, error: LiteLLMMLXError) -> None:
        """End every item that it has with an error."""

    def finish_device_work(self) -> None:
        """Wait until MLX's own threads are idle."""


T = TypeVar("T")
ModelT = TypeVar("ModelT")
WorkerT = TypeVar("WorkerT", bound=StepWorker[Any])


class _Call(Generic[WorkerT]):
    """A function that another thread wants run on this one."""

    def __init__(self, function: Callable[[WorkerT], Any]) -> None:
        self._function = function
        self.future: Future[Any] = Future()

    def run(self, worker: WorkerT) -> None:
        try:
            self.future.set_result(self._function(worker))
        except BaseException as error:  # whoever asked for it gets it, and the requests go on
            self.future.set_exception(error)


class ModelThread(Generic[ModelT, WorkerT, ItemT]):
    """One model, loaded and run by a worker on a thread that starts at once.

    When the thread fails it ends every accepted item with an error and `is_alive` turns false: make
    a new one then.

    Args:
        load: called on the thread; gives the model. It chooses a BLAS, so nothing may import MLX
            before it.
        make_worker: called on the thread after that.
        name: of the model, for the thread's name and for messages.
        max_queued: items that may wait.
    """

    def __init__(
        self,
        load: Callable[[], ModelT],
        make_worker: Callable[[ModelT], WorkerT],
        *,
        name: str,
        max_queued: int,
    ) -> None:
        self._load = load
        self._make_worker = make_worker
        self._name = name
        self._max_queued = max_queued
        self._inbox: queue.SimpleQueue[ItemT | _Call[WorkerT] | None] = queue.SimpleQueue()
        self._loaded: Future[ModelT] = Future()
        self._worker: WorkerT | None = None
        self._lock = threading.Lock()
        self._error: LiteLLMMLXError | None = None
        self._is_stopping = False
        self._parks = False
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"litellm-mlx {name}", daemon=True)
        _live_threads.add(self)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """It takes requests, or will once the model is loaded."""
        return self._error is None and not self._is_stopping

    @property
    def cause_of_failure(self) -> BaseException | None:
        """What made the thread fail, if something did."""
        return None if self._error is None else self._error.__cause__

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

    def call(self, function: Callable[[WorkerT], T]) -> T:
        """Run a function on the thread, between two steps, and return what it returns.

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

    def notify(self, function: Callable[[WorkerT], Any]) -> None:
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

    def _accept(self, item: ItemT, num_new: int) -> None:
        """Hand an item over, which counts as `num_new` of those that may wait."""
        with self._lock:  # so that an item is either refused here or seen by the closing thread
            if self._error is not None:
                raise self._error
            num_queued = self._num_waiting()
            if num_queued + num_new > self._max_queued:
                raise OverloadedError(
                    f"{num_queued} requests wait for {self._name!r} already and the limit is "
                    f"{self._max_queued}; try again later or raise LITELLM_MLX_MAX_QUEUED"
                )
            item.accepted_s = time.monotonic()
            self._inbox.put(item)

    def _num_waiting(self) -> int:
        worker = self._worker
        return self._inbox.qsize() + (worker.num_waiting if worker is not None else 0)

    def _wake(self) -> None:
        self._inbox.put(_WAKE_UP)

    # on the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        worker: WorkerT | None = None
        error: LiteLLMMLXError = EngineStoppedError(
            f"the engine of {self._name!r} was shut down before the request ended"
        )
        try:
            loaded = self._load()
            self._worker = worker = self._make_worker(loaded)
            self._loaded.set_result(loaded)
            self._serve(worker)
        except LiteLLMMLXError as refused:
            error = refused
        except BaseException as failed:  # SystemExit ends no process from here: callers would wait
            logger.exception("the engine of %s failed", self._name)
            error = self._load_failure(failed) if worker is None else _failure(failed)
        self._close(worker, error)
        self._is_closed.set()
        if self._parks:
            threading.Event().wait()

    def _load_failure(self, error: BaseException) -> ModelLoadError:
        """What callers are told when something failed before the first request could be served."""
        wrapped = ModelLoadError(f"cannot load {self._name!r}: {type(error).__name__}: {error}")
        wrapped.__cause__ = error
        return wrapped

    def _serve(self, worker: WorkerT) -> None:
        while not self._is_stopping:
            self._drain_inbox(worker)
            if not worker.is_idle:
                worker.step()

    def _drain_inbox(self, worker: WorkerT) -> None:
        """Take what has come; wait for something when there is nothing to do."""
        must_wait = worker.is_idle
        while True:
            try:
                item = self._wait() if must_wait else self._inbox.get_nowait()
            except queue.Empty:
                return
            must_wait = False
            if isinstance(item, _Call):
                item.run(worker)
            elif item is not _WAKE_UP:
                worker.add(item)

    def _wait(self) -> ItemT | _Call[WorkerT] | None:
        """The next that comes. Who is idle for a moment has time to tidy up."""
        with contextlib.suppress(queue.Empty):
            return self._inbox.get(timeout=_TIDY_AFTER_S)
        give_back_free_memory()
        return self._inbox.get()

    def _close(self, worker: WorkerT | None, error: LiteLLMMLXError) -> None:
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
                item.fail(error)
        if worker is not None:
            worker.fail(error)
            # MLX's own threads must be idle when the interpreter tears them down.
            with contextlib.suppress(Exception):
                worker.finish_device_work()
        self._worker = None


_live_threads: weakref.WeakSet[ModelThread[Any, Any, Any]] = weakref.WeakSet()


def _wait_until_gone(native_id: int | None, timeout_s: float = 1.0) -> None:
    """Wait for the end of a joined thread's destructors, where the system shows them (Linux)."""
    task = Path(f"/proc/self/task/{native_id}")
    deadline_s = time.monotonic() + timeout_s
    while task.exists() and time.monotonic() < deadline_s:
        time.sleep(0.002)


def _failure(error: BaseException) -> EngineError:
    """What callers are told when the engine's own code failed."""
    wrapped = EngineError(
        f"the engine failed while it served the request ({type(error).__name__}: {error}); "
        "the next request starts a new one"
    )
    wrapped.__cause__ = error
    return wrapped


def park_all() -> None:
    """Stop every engine of this process at interpreter exit; nothing may run after it."""
    for thread in list(_live_threads):
        thread.park()
