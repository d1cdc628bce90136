"""Holds a request's answer back until a check has passed it, and draws anew what fails.

Owns the tries: their seeds, their temperature, their common deadline and their summed usage. What
is checked is the caller's function; the engine below only sees further requests.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

from litellm_mlx.engine.stream import EventStream
from litellm_mlx.errors import ConstraintViolationError
from litellm_mlx.types import Delta, Done, Event, Finished, GenerationRequest, SamplingParams

# A greedy model would only repeat its mistake; high enough to differ, low enough to stay sensible.
RETRY_TEMPERATURE = 0.7

Check = Callable[[str], str | None]


class Events(Protocol):
    """Events of one request, to be iterated or awaited; closing it early cancels the request."""

    def __iter__(self) -> Self:
        """Iterate in a thread."""

    def __next__(self) -> Event:
        """Wait for the next event."""

    def __aiter__(self) -> Self:
        """Iterate on the running event loop."""

    async def __anext__(self) -> Event:
        """Wait for the next event without blocking the loop."""

    def close(self) -> None:
        """Cancel the request unless it has ended."""


@dataclass(slots=True)
class _Completion:
    """What one completion of the current try has given so far."""

    events: list[Delta | Finished] = field(default_factory=list)
    text: str = ""


class CheckedEvents:
    """Events of a request whose texts have all passed; nothing comes before that.

    A completion that fails is drawn again, alone, until it passes or has had `max_tries`.

    Args:
        request: what was asked.
        submit: hands a request to the engine.
        check: says what is wrong with a finished text, or `None`.
        max_tries: how often one completion is drawn at most.
    """

    def __init__(
        self,
        request: GenerationRequest,
        submit: Callable[[GenerationRequest], EventStream],
        check: Check,
        max_tries: int,
    ) -> None:
        self._request = request
        self._submit = submit
        self._check = check
        self._max_tries = max_tries
        self._num_tries = 1
        self._pending = list(range(request.n))
        self._completions = [_Completion() for _ in self._pending]
        self._passed: list[list[Delta | Finished]] = [[] for _ in self._pending]
        self._done: Done | None = None
        self._ready: deque[Event] = deque()
        self._is_over = False
        self._stream = submit(request)

    def __iter__(self) -> CheckedEvents:
        """Iterate in a thread."""
        return self

    def __next__(self) -> Event:
        """Wait until all texts have passed, then give their events.

        Raises:
            ConstraintViolationError: a completion has failed `max_tries` times.
        """
        while not self._ready and not self._is_over:
            for event in self._stream:
                self._take(event)
            self._judge()
        if not self._ready:
            raise StopIteration
        return self._ready.popleft()

    def __aiter__(self) -> CheckedEvents:
        """Iterate on the running event loop."""
        return self

    async def __anext__(self) -> Event:
        """As `__next__`; the check runs in a thread, for it may take a while."""
        while not self._ready and not self._is_over:
            async for event in self._stream:
                self._take(event)
            await asyncio.to_thread(self._judge)
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    def close(self) -> None:
        """Cancel the try that runs; safe to call twice."""
        self._is_over = True
        self._ready.clear()
        self._stream.close()

    def _take(self, event: Event) -> None:
        if isinstance(event, Done):
            self._done = event if self._done is None else _add(self._done, event)
            return
        completion = self._completions[event.index]
        completion.events.append(event)
        if isinstance(event, Delta):
            completion.text += event.text

    def _judge(self) -> None:
        """Keep what passes; draw the rest again, or give up, or hand everything over."""
        failed: list[int] = []
        problem = text = ""
        for index, completion in zip(self._pending, self._completions, strict=True):
            found = self._check(completion.text)
            if found is None:
                self._passed[index] = [replace(e, index=index) for e in completion.events]
            else:
                failed.append(index)
                problem, text = found, completion.text
        if failed and self._num_tries >= self._max_tries:
            self._is_over = True
            raise _violation(problem, text, self._num_tries)
        if failed:
            self._draw_again(failed)
        else:
            self._hand_over()

    def _draw_again(self, failed: list[int]) -> None:
        self._pending = failed
        self._completions = [_Completion() for _ in failed]
        sampling = _sampling_of_try(self._request.sampling, self._num_tries)
        self._num_tries += 1
        if self._is_over:  # closed while the check ran
            return
        self._stream = self._submit(replace(self._request, sampling=sampling, n=len(failed)))

    def _hand_over(self) -> None:
        assert self._done is not None, "a stream ends with Done"
        for events in self._passed:
            self._ready.extend(events)
        self._ready.append(replace(self._done, num_tries=self._num_tries))
        self._is_over = True


def _sampling_of_try(sampling: SamplingParams, num_tries: int) -> SamplingParams:
    """A seed of its own for each further try, and some temperature."""
    seed = sampling.seed
    if seed is not None:
        text = f"{seed}:try:{num_tries}".encode()
        seed = int.from_bytes(hashlib.blake2b(text, digest_size=7).digest())
    return replace(sampling, seed=seed, temperature=sampling.temperature or RETRY_TEMPERATURE)


def _add(first: Done, second: Done) -> Done:
    """Two tries as one request: the prompt counts once, time runs from the first submit."""
    usage = replace(
        first.usage,
        completion_tokens=first.usage.completion_tokens + second.usage.completion_tokens,
        reasoning_tokens=first.usage.reasoning_tokens + second.usage.reasoning_tokens,
    )
    total_s = first.timings.total_s + second.timings.total_s
    return replace(first, usage=usage, timings=replace(first.timings, total_s=total_s))


def _violation(problem: str, text: str, num_tries: int) -> ConstraintViolationError:
    message = (
        f"no text of {num_tries} tries satisfied the schema; the last one: {problem}. Ask in the "
        "prompt for what the schema wants, or loosen the schema"
    )
    return ConstraintViolationError(message, text)
