"""The channel between engine and caller: order, errors, deadlines, cancellation."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest

from litellm_mlx.engine.stream import Channel, EventStream
from litellm_mlx.errors import EngineError, RequestTimeoutError
from litellm_mlx.types import Delta, Done, Event, Finished, Timings, Usage

EVENTS: list[Event] = [
    Delta(0, "a"),
    Delta(0, "b"),
    Finished(0, "stop"),
    Done(Usage(1, 2), Timings(0, 0, 0)),
]


def stream_of(channel: Channel, timeout_s: float | None = None) -> EventStream:
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    return EventStream(channel, deadline_s, lambda: None)


def put_all(channel: Channel) -> None:
    for event in EVENTS:
        channel.put(event)


async def collect(stream: EventStream) -> list[Event]:
    return [event async for event in stream]


def test_events_come_in_order_and_end_with_done() -> None:
    channel = Channel()
    put_all(channel)
    assert list(stream_of(channel)) == EVENTS
    assert not channel.is_cancelled


def test_async_iteration_gets_what_was_put_before_and_after_it_began() -> None:
    channel = Channel()
    channel.put(EVENTS[0])
    late = threading.Timer(0.05, lambda: [channel.put(event) for event in EVENTS[1:]])
    late.start()
    assert asyncio.run(collect(stream_of(channel))) == EVENTS
    late.join(5)


def test_an_error_is_raised_where_the_caller_waits() -> None:
    channel = Channel()
    channel.put(EngineError("broke"))
    with pytest.raises(EngineError, match="broke"):
        list(stream_of(channel))
    with pytest.raises(EngineError, match="broke"):
        channel.put(EngineError("broke"))
        asyncio.run(collect(stream_of(channel)))


def test_a_passed_deadline_raises_and_cancels() -> None:
    channel = Channel()
    with pytest.raises(RequestTimeoutError):
        next(stream_of(channel, timeout_s=0.01))
    assert channel.is_cancelled
    channel = Channel()
    with pytest.raises(RequestTimeoutError):
        asyncio.run(collect(stream_of(channel, timeout_s=0.01)))
    assert channel.is_cancelled


def test_a_dropped_stream_cancels_even_when_it_was_never_iterated() -> None:
    channel = Channel()
    stream = stream_of(channel)
    del stream
    gc.collect()
    assert channel.is_cancelled


def test_a_cancelled_task_cancels() -> None:
    channel = Channel()

    async def cancel_while_waiting() -> None:
        task = asyncio.ensure_future(collect(stream_of(channel)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel_while_waiting())
    assert channel.is_cancelled


def test_a_put_after_the_loop_closed_marks_the_channel_cancelled() -> None:
    channel = Channel()
    stream = stream_of(channel)

    async def take_one() -> Event:
        channel.put(EVENTS[0])
        return await anext(stream)

    assert asyncio.run(take_one()) == EVENTS[0]
    channel.put(EVENTS[1])
    assert channel.is_cancelled


def test_times_of_two_runs_add_up_but_for_the_first_token() -> None:
    first = Timings(1, 2, 10, compile_s=1, prefill_s=3, decode_s=5, mask_s=1)
    second = Timings(1, 3, 20, compile_s=2, prefill_s=7, decode_s=10, mask_s=2)
    both = Timings(2, 2, 30, compile_s=3, prefill_s=10, decode_s=15, mask_s=3)
    assert first.followed_by(second) == both
