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
    """What one completion of the current round has given so far."""

    events: list[Delta | Finished] = field(default_factory=list)
    text: str = ""


class CheckedEvents:
    """Events of a request whose texts have all passed; nothing comes before that.

    A completion that fails is drawn again until it passes or has had `max_tries`: once more, then
    twice side by side, then three times, and so on. Rows of one batch cost little more than one
    row, so a text that is hard to get right is had, or given up, in fewer rounds.

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
        self._num_rounds = 1
        # Which of the caller's completions each one of the round may become.
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
        """Cancel the round that runs; safe to call twice."""
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
        problem = text = ""
        for index, completion in zip(self._pending, self._completions, strict=True):
            if self._passed[index]:  # by one that was drawn beside it
                continue
            found = self._check(completion.text)
            if found is None:
                self._passed[index] = [replace(e, index=index) for e in completion.events]
            else:
                problem, text = found, completion.text
        failed = [index for index, events in enumerate(self._passed) if not events]
        num_left = self._max_tries - self._num_tries
        if failed and num_left <= 0:
            self._is_over = True
            raise _violation(problem, text, self._num_tries)
        if failed:
            self._draw_again(failed, min(self._num_rounds, num_left))
        else:
            self._hand_over()

    def _draw_again(self, failed: list[int], num_each: int) -> None:
        self._pending = [index for index in failed for _ in range(num_each)]
        self._completions = [_Completion() for _ in self._pending]
        sampling = _sampling_of_round(self._request.sampling, self._num_rounds)
        self._num_rounds += 1
        self._num_tries += num_each
        if self._is_over:  # closed while the check ran
            return
        self._stream = self._submit(replace(self._request, sampling=sampling, n=len(self._pending)))

    def _hand_over(self) -> None:
        assert self._done is not None, "a stream ends with Done"
        for events in self._passed:
            self._ready.extend(events)
        self._ready.append(replace(self._done, num_tries=self._num_tries))
        self._is_over = True


def _sampling_of_round(sampling: SamplingParams, num_rounds: int) -> SamplingParams:
    """A seed of its own for each further round, and some temperature."""
    seed = sampling.seed
    if seed is not None:
        text = f"{seed}:try:{num_rounds}".encode()
        seed = int.from_bytes(hashlib.blake2b(text, digest_size=7).digest())
    return replace(sampling, seed=seed, temperature=sampling.temperature or RETRY_TEMPERATURE)


def _add(first: Done, second: Done) -> Done:
    """Two rounds as one request: the prompt counts once, time runs from the first submit."""
    usage = replace(
        first.usage,
        completion_tokens=first.usage.completion_tokens + second.usage.completion_tokens,
        reasoning_tokens=first.usage.reasoning_tokens + second.usage.reasoning_tokens,
    )
    return replace(
        first,
        usage=usage,
        timings=first.timings.followed_by(second.timings),
        num_forced_tokens=first.num_forced_tokens + second.num_forced_tokens,
    )


def _violation(problem: str, text: str, num_tries: int) -> ConstraintViolationError:
    message = (
        f"no text of {num_tries} tries satisfied the schema; the last one: {problem}. Ask in the "
        "prompt for what the schema wants, or loosen the schema"
    )
    return ConstraintViolationError(message, text)
