"""Engine events with the tool calls read out of their text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from litellm_mlx.translate.tools import ToolPlan
from litellm_mlx.types import Delta, Event, Finished


class AnswerReader:
    """Turns the events of one request into those that its caller gets.

    Args:
        plan: how the request's tools are served; `None` leaves every event as it is.
        n: completions of the request.
    """

    def __init__(self, plan: ToolPlan | None, n: int) -> None:
        self._readers = [] if plan is None else [plan.reader() for _ in range(n)]

    def read(self, event: Event) -> Iterator[Event]:
        """What one event of the engine means for the caller."""
        if not self._readers:
            yield event
        elif isinstance(event, Delta):
            yield from self._delta(event)
        elif isinstance(event, Finished):
            yield from self._finished(event)
        else:
            yield event

    def _delta(self, event: Delta) -> Iterator[Event]:
        found = self._readers[event.index].add(event.text)
        delta = replace(
            event,
            text=found.text,
            reasoning=event.reasoning + found.reasoning,
            tool_calls=found.tool_calls,
        )
        if delta != Delta(event.index):
            yield delta

    def _finished(self, event: Finished) -> Iterator[Event]:
        reader = self._readers[event.index]
        rest = reader.finish()
        if rest.text or rest.tool_calls:
            yield Delta(event.index, rest.text, rest.reasoning, tool_calls=rest.tool_calls)
        if reader.stop_sequence is not None:
            event = replace(event, stop_sequence=reader.stop_sequence)
        is_call = reader.has_calls and event.reason == "stop"
        yield replace(event, reason="tool_calls") if is_call else event
