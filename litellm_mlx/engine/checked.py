"""Lets an answer end only when its text has passed a check, and draws anew what fails.

Owns the tries: their seeds, their temperature, their common deadline and their summed usage. What
is checked is the caller's function; the engine below only sees further requests. A stream that
someone reads along cannot be drawn again: it ends with the error.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

from litellm_mlx.engine.stream import EventStream
from litellm_mlx.errors import ConstraintViolationError
from litellm_mlx.grammar.check import Check
from litellm_mlx.types import (
    Delta,
    Done,
    Event,
    Finished,
    GenerationRequest,
    SamplingParams,
    Tier,
)

logger = logging.getLogger("litellm_mlx")

# A greedy model would only repeat its mistake; high enough to differ, low enough to stay sensible.
RETRY_TEMPERATURE = 0.7


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
        check: of a finished text.
        tier: in "grammar" a text that fails is a fault, which is logged and counted.
        max_tries: how often one completion is drawn at most.
    """

    def __init__(
        self,
        request: GenerationRequest,
        submit: Callable[[GenerationRequest], EventStream],
        check: Check,
        *,
        tier: Tier,
        max_tries: int,
    ) -> None:
        self._request = request
        self._submit = submit
        self._check = check
        self._tier = tier
        self._max_tries = max_tries
        self._num_tries = 1
        self._num_rounds = 1
        self._num_faults = 0
        # Which of the caller's completions each one of the round may become.
        self._pending = list(range(request.n))
        self._completions = [_Completion() for _ in self._pending]
        self._passed: list[list[Delta | Finished]] = [[] for _ in self._pending]
        self._last_failure = ("", "")  # what was found, and the text
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
            self._go_on()
        if not self._ready:
            raise StopIteration
        return self._ready.popleft()

    def __aiter__(self) -> CheckedEvents:
        """Iterate on the running event loop."""
        return self

    async def __anext__(self) -> Event:
        """As `__next__`; what may take a while runs in a thread."""
        while not self._ready and not self._is_over:
            async for event in self._stream:
                self._take(event)
            if all(self._check.is_quick(completion.text) for completion in self._completions):
                self._judge()
            else:
                await asyncio.to_thread(self._judge)
            if all(self._passed):
                self._go_on()
            else:
                await asyncio.to_thread(self._go_on)
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
        """Keep what passes of the round."""
        for index, completion in zip(self._pending, self._completions, strict=True):
            if self._passed[index]:  # by one that was drawn beside it
                continue
            found = self._check(completion.text)
            if found is None:
                self._passed[index] = [replace(e, index=index) for e in completion.events]
                continue
            self._last_failure = found, completion.text
            if self._tier == "grammar":
                self._num_faults += 1
                log_fault(self._request, "is withheld")

    def _go_on(self) -> None:
        """Draw again what has not passed, or give up, or hand everything over."""
        failed = [index for index, events in enumerate(self._passed) if not events]
        num_left = self._max_tries - self._num_tries
        if failed and num_left <= 0:
            self._is_over = True
            raise _violation(*self._last_failure, self._num_tries, self._num_faults)
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
        self._ready.append(
            replace(self._done, num_tries=self._num_tries, num_grammar_faults=self._num_faults)
        )
        self._is_over = True


class StreamedEvents:
    """Events of a request as they come; its completions end only if their texts pass.

    Args:
        request: what was asked.
        stream: the engine's events of it.
        check: of a finished text.
    """

    def __init__(self, request: GenerationRequest, stream: EventStream, check: Check) -> None:
        self._request = request
        self._stream = stream
        self._check = check
        self._texts: list[list[str]] = [[] for _ in range(request.n)]

    def __iter__(self) -> StreamedEvents:
        """Iterate in a thread."""
        return self

    def __next__(self) -> Event:
        """Wait for the next event.

        Raises:
            ConstraintViolationError: a completion has ended, and its text does not pass.
        """
        event = next(self._stream)
        if isinstance(event, Finished):
            self._judge(event)
        else:
            self._keep(event)
        return event

    def __aiter__(self) -> StreamedEvents:
        """Iterate on the running event loop."""
        return self

    async def __anext__(self) -> Event:
        """As `__next__`; a check that may take a while runs in a thread."""
        event = await anext(self._stream)
        if not isinstance(event, Finished):
            self._keep(event)
        elif self._check.is_quick(self._text(event)):
            self._judge(event)
        else:
            await asyncio.to_thread(self._judge, event)
        return event

    def close(self) -> None:
        """Cancel the request unless it has ended; safe to call twice."""
        self._stream.close()

    def _keep(self, event: Event) -> None:
        if isinstance(event, Delta):
            self._texts[event.index].append(event.text)

    def _text(self, finished: Finished) -> str:
        return "".join(self._texts[finished.index])

    def _judge(self, finished: Finished) -> None:
        text = self._text(finished)
        found = self._check(text)
        if found is not None:
            self._stream.close()
            log_fault(self._request, "was streamed, which ends with an error")
            raise _violation(found, text, num_tries=1, num_faults=1)


def log_fault(request: GenerationRequest, fate: str) -> None:
    """Tell the operator that a grammar let through what its schema forbids; no word of the text."""
    constraint = request.constraint
    assert constraint is not None, "a free text passes every check"
    logger.warning(
        "a grammar is at fault: a text that the backend %s let through does not satisfy its %s "
        "(hash %s) and %s",
        constraint.backend,
        constraint.kind,
        constraint.digest,
        fate,
    )


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


def _violation(
    problem: str, text: str, num_tries: int, num_faults: int
) -> ConstraintViolationError:
    what = f"no text of {num_tries} tries satisfied the schema; the last one"
    if num_tries == 1:
        what = "the text does not satisfy the schema"
    message = (
        f"{what}: {problem}. Ask in the prompt for what the schema wants, or loosen the schema"
    )
    return ConstraintViolationError(message, text, num_faults)
