"""The channel of one request: the engine puts events in, one caller takes them out.

The engine holds the `Channel`, the caller the `EventStream`; when the caller drops, closes or
outlasts its stream, the channel is marked cancelled and the engine frees the rows at its next step.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable

from litellm_mlx.errors import LiteLLMMLXError, RequestCancelled, RequestTimeoutError
from litellm_mlx.types import Done, Event


class Channel:
    """Events of one request on their way to its caller. Any thread may call any method."""

    def __init__(self) -> None:
        self.is_cancelled = False
        self._items: queue.SimpleQueue[Event | LiteLLMMLXError] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._wake: Callable[[], None] | None = None

    def put(self, item: Event | LiteLLMMLXError) -> None:
        """Hand over an event, or the error that ends the request."""
        self._items.put(item)
        with self._lock:
            wake = self._wake
        if wake is not None:
            try:
                wake()
            except RuntimeError:  # the caller's event loop is closed: nobody waits any more
                self.is_cancelled = True

    def take(self, timeout_s: float | None) -> Event | LiteLLMMLXError:
        """The next item; `timeout_s` 0 does not wait.

        Raises:
            queue.Empty: nothing came in time.
        """
        if timeout_s == 0:
            return self._items.get_nowait()
        return self._items.get(timeout=timeout_s)

    def call_on_put(self, wake: Callable[[], None]) -> None:
        """Have `wake` called after every `put`, from the putting thread."""
        with self._lock:
            self._wake = wake


class EventStream:
    """One caller's view of a request: iterate it, or iterate it asynchronously, to its end.

    Iteration raises the error that ended the request. Dropping or closing the stream early cancels
    the request.

    Args:
        channel: where the engine puts the events.
        deadline_s: monotonic time after which the caller waits no longer.
        wake_engine: called on cancel, so that an idle engine looks.
    """

    def __init__(
        self, channel: Channel, deadline_s: float | None, wake_engine: Callable[[], None]
    ) -> None:
        self._channel = channel
        self._deadline_s = deadline_s
        self._wake_engine = wake_engine
        self._is_over = False
        self._event: asyncio.Event | None = None

    def __iter__(self) -> EventStream:
        """Iterate in a thread."""
        return self

    def __next__(self) -> Event:
        """Wait for the next event."""
        if self._is_over:
            raise StopIteration
        try:
            return self._handle(self._channel.take(self._remaining_s()))
        except queue.Empty:
            raise self._time_out() from None

    def __aiter__(self) -> EventStream:
        """Iterate on the running event loop."""
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event without blocking the loop."""
        if self._is_over:
            raise StopAsyncIteration
        while True:
            arrived = self._arrived()
            arrived.clear()
            try:
                return self._handle(self._channel.take(0))
            except queue.Empty:
                pass
            try:
                # Not wait_for: Python 3.11's swallows a cancellation that meets an event.
                async with asyncio.timeout(self._remaining_s()):
                    await arrived.wait()
            except TimeoutError:
                raise self._time_out() from None
            except asyncio.CancelledError:
                self.close()
                raise

    def close(self) -> None:
        """Cancel the request unless it has ended. Safe to call twice, from any thread."""
        if not self._is_over:
            self._is_over = True
            self._channel.is_cancelled = True
            self._wake_engine()

    def __del__(self) -> None:
        """A dropped stream is a cancelled one."""
        self.close()

    def _arrived(self) -> asyncio.Event:
        """The loop's own event that every `put` sets."""
        if self._event is None:
            loop, event = asyncio.get_running_loop(), asyncio.Event()
            self._channel.call_on_put(lambda: _set_on_loop(loop, event))
            self._event = event
        return self._event

    def _handle(self, item: Event | LiteLLMMLXError) -> Event:
        if isinstance(item, LiteLLMMLXError):
            self._is_over = True
            raise item
        if isinstance(item, Done):
            self._is_over = True
        return item

    def _remaining_s(self) -> float | None:
        if self._deadline_s is None:
            return None
        # 0 would not wait at all, and an event that is already there still counts.
        return max(self._deadline_s - time.monotonic(), 1e-3)

    def _time_out(self) -> RequestTimeoutError:
        self.close()
        return timeout_error()


def timeout_error() -> RequestTimeoutError:
    """The error of a request whose deadline passed."""
    return RequestTimeoutError(
        "the request did not finish before its deadline; raise `timeout`, or ask for less with "
        "`max_tokens`"
    )


def cancelled_error() -> RequestCancelled:
    """The error of a request whose caller gave up."""
    return RequestCancelled("the caller cancelled the request")


def _set_on_loop(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    loop.call_soon_threadsafe(event.set)
