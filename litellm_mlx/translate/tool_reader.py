"""Text of a completion to content and tool calls, as it arrives.

Owns where the calls are; what stands between the texts around a call is the form's. The grammar
has already seen to the syntax, so nothing here guesses.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from litellm_mlx.translate.tool_formats.form import INDEX, ArgumentsReader, Form, Tool
from litellm_mlx.types import ToolCallDelta

_SHORT_ID = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class ReadText:
    """What became certain: text of the answer, of a thought before it, and of calls."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A finished call; `arguments` is a JSON object as text."""

    id: str
    name: str
    arguments: str


class ToolReader:
    """Reads one completion; the same for whole answers and for streams.

    Args:
        form: how the model writes calls.
        tools: those it may call.
        may_begin_with_text: free text may stand before the calls.
        stops: texts that end free text; see `stop_sequence`.
        make_id: gives each call its id.
    """

    def __init__(
        self,
        form: Form,
        tools: Sequence[Tool],
        *,
        may_begin_with_text: bool,
        stops: Sequence[str] = (),
        make_id: Callable[[], str] | None = None,
    ) -> None:
        self._form = form
        self._tools = {tool.name: tool for tool in tools}
        self._make_id = make_id or (short_id if form.has_short_ids else long_id)
        self._may_begin_with_text = may_begin_with_text
        self._stops = tuple(stops)
        self._buffer = ""
        self._position = -1
        self.stop_sequence: str | None = None  # the text that ended the answer; not in it
        self._arguments: ArgumentsReader | None = None
        self._step: Callable[[], Iterator[ReadText]] = self._thought
        self._first_head = self._pattern(form.opens + form.head)
        self._next_head = self._pattern(form.between + form.head)

    @property
    def has_calls(self) -> bool:
        """A call has begun."""
        return self._position >= 0

    def add(self, text: str) -> ReadText:
        """Take more text of the completion."""
        self._buffer += text
        return _joined(self._run())

    def finish(self) -> ReadText:
        """What was held back because it might have become a call."""
        if self._step in (self._thought, self._start, self._text, self._rest):
            text, self._buffer = self._buffer, ""
            return ReadText(text)
        return ReadText()

    def _run(self) -> Iterator[ReadText]:
        """Steps until none has anything left to take."""
        while True:
            step, length = self._step, len(self._buffer)
            yield from step()
            if self._step == step and len(self._buffer) == length:
                return

    def _thought(self) -> Iterator[ReadText]:
        opening, _ = self._form.thought or ("", "")
        if not opening:
            self._step = self._start
        elif self._buffer.startswith(opening):
            self._buffer = self._buffer[len(opening) :]
            self._step = self._thinking
        elif not opening.startswith(self._buffer):
            self._step = self._start
        yield from ()

    def _thinking(self) -> Iterator[ReadText]:
        closing = self._form.thought[1] if self._form.thought else ""
        thought, ending = self._take_until((closing,))
        yield ReadText(reasoning=thought)
        if ending is not None:
            self._buffer = self._buffer[len(closing) :]
            self._step = self._start

    def _start(self) -> Iterator[ReadText]:
        """Decide by its first characters what the answer is."""
        trigger, head = self._form.trigger, self._form.answer_head
        if self._may_begin_with_text:
            self._step = self._text
        elif self._buffer.startswith(trigger):
            self._step = self._head
        elif head and self._buffer.startswith(head):
            self._buffer = self._buffer[len(head) :]
            self._step = self._rest
        elif not (trigger.startswith(self._buffer) or (head and head.startswith(self._buffer))):
            self._step = self._rest
        yield from ()

    def _rest(self) -> Iterator[ReadText]:
        """Only text can follow."""
        text, ending = self._take_until(self._stops)
        yield ReadText(text)
        if ending is not None:
            self._stop(ending)

    def _text(self) -> Iterator[ReadText]:
        trigger = self._form.trigger
        text, ending = self._take_until((trigger, *self._stops))
        yield ReadText(text)
        if ending == trigger:
            self._step = self._head
        elif ending is not None:
            self._stop(ending)

    def _stop(self, ending: str) -> None:
        self.stop_sequence = ending
        self._buffer = ""
        self._step = self._after_stop

    def _after_stop(self) -> Iterator[ReadText]:
        """The grammar lets nothing follow."""
        yield from ()

    def _take_until(self, endings: Sequence[str]) -> tuple[str, str | None]:
        """What stands before the first of `endings`, or cannot be a part of one; and which it is.

        The first is the one that is complete first, as in the engine.
        """
        found = [(at, len(e), e) for e in endings if (at := self._buffer.find(e)) >= 0]
        if found:
            at, _, ending = min(found, key=lambda one: (one[0] + one[1], one[0]))
        else:
            held = max((_overlap(self._buffer, e) for e in endings), default=0)
            at, ending = len(self._buffer) - held, None
        taken, self._buffer = self._buffer[:at], self._buffer[at:]
        return taken, ending

    def _head(self) -> Iterator[ReadText]:
        pattern = self._next_head if self.has_calls else self._first_head
        found = pattern.match(self._buffer)
        if found is None:
            return
        tool = self._tools[found["name"]]
        self._buffer = self._buffer[found.end() :]
        self._position += 1
        self._arguments = self._form.arguments_reader(tool)
        self._step = self._in_arguments
        start = ToolCallDelta(self._position, self._make_id(), tool.name)
        yield ReadText(tool_calls=(start,))

    def _in_arguments(self) -> Iterator[ReadText]:
        assert self._arguments is not None, "a head comes before arguments"
        length, text, is_complete = self._arguments.read(self._buffer)
        self._buffer = self._buffer[length:]
        if text:
            yield ReadText(tool_calls=(ToolCallDelta(self._position, arguments=text),))
        if is_complete:
            self._step = self._tail

    def _tail(self) -> Iterator[ReadText]:
        tail = self._form.tail
        if self._buffer.startswith(tail):
            self._buffer = self._buffer[len(tail) :]
            self._step = self._head
        yield from ()

    def _pattern(self, head: str) -> re.Pattern[str]:
        names = sorted(self._tools, key=len, reverse=True)
        name = f"(?P<name>{'|'.join(map(re.escape, names))})"
        return re.compile(re.escape(head).replace("NAME", name, 1).replace("INDEX", INDEX))


def read_calls(reader: ToolReader, text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Content and calls of a whole completion."""
    parts = [reader.add(text), reader.finish()]
    starts = [d for part in parts for d in part.tool_calls if d.id]
    deltas = [d for part in parts for d in part.tool_calls]
    calls = tuple(
        ToolCall(s.id, s.name, "".join(d.arguments for d in deltas if d.position == s.position))
        for s in starts
    )
    return "".join(part.text for part in parts), calls


def long_id() -> str:
    """An id as OpenAI's look."""
    return f"call_{secrets.token_hex(12)}"


def short_id() -> str:
    """An id as Mistral's templates want it."""
    return "".join(secrets.choice(_SHORT_ID) for _ in range(9))


def _overlap(text: str, ending: str) -> int:
    """Length of the longest start of `ending` that `text` ends with."""
    lengths = range(min(len(text), len(ending) - 1), 0, -1)
    return next((n for n in lengths if text.endswith(ending[:n])), 0)


def _joined(parts: Iterator[ReadText]) -> ReadText:
    found = list(parts)
    return ReadText(
        "".join(part.text for part in found),
        "".join(part.reasoning for part in found),
        tuple(_merged([delta for part in found for delta in part.tool_calls])),
    )


def _merged(deltas: Sequence[ToolCallDelta]) -> Iterator[ToolCallDelta]:
    """Deltas of one call that come together made one; a start stays apart from arguments."""
    pending: ToolCallDelta | None = None
    for delta in deltas:
        if pending is not None and not delta.id and pending.position == delta.position:
            arguments = pending.arguments + delta.arguments
            pending = ToolCallDelta(pending.position, pending.id, pending.name, arguments)
            continue
        if pending is not None:
            yield pending
        pending = delta
    if pending is not None:
        yield pending
