"""Events of a request that only wants to know how long its prompt is; no engine sees it."""

from __future__ import annotations

from typing import Self

from litellm_mlx.types import Done, Event, Finished, GenerationRequest, Timings, Usage


class Counted:
    """An empty answer with the prompt's tokens in its usage."""

    def __init__(self, request: GenerationRequest) -> None:
        usage = Usage(prompt_tokens=len(request.prompt_token_ids))
        ends = [Finished(index, "stop") for index in range(request.n)]
        done = Done(usage, Timings(queue_s=0.0, time_to_first_token_s=0.0, total_s=0.0))
        self._events: list[Event] = [*ends, done]

    def __iter__(self) -> Self:
        """Iterate in a thread."""
        return self

    def __next__(self) -> Event:
        """The next event."""
        if not self._events:
            raise StopIteration
        return self._events.pop(0)

    def __aiter__(self) -> Self:
        """Iterate on an event loop."""
        return self

    async def __anext__(self) -> Event:
        """The next event."""
        if not self._events:
            raise StopAsyncIteration
        return self._events.pop(0)

    def close(self) -> None:
        """Nothing runs."""
        self._events.clear()
