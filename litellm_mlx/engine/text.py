"""Token bytes to text: split UTF-8, stop sequences and thinking blocks across token borders.

Text is held back only while it may still turn into half a character, a stop sequence or a thinking
marker. Matching is mlx-lm's `TextStateMachine`, so that what it knows of markers holds here too.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_NORMAL = "normal"
_REASONING = "reasoning"


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Text that is now certain, and the stop sequence that ended it, which is not in it."""

    text: str = ""
    reasoning: str = ""
    stop_sequence: str | None = None

    @property
    def is_stopped(self) -> bool:
        """A stop sequence was completed."""
        return self.stop_sequence is not None


class TextDecoder:
    """The text of one completion, token by token.

    Args:
        stop: stop sequences; the text ends before the first of them.
        thinking_markers: opening and closing marker of a thinking block, or `None`.
        opens_reasoning: the prompt ends inside a thinking block; without markers its end is for
            the caller to tell, see `end_thinking`.
        trims_leading_space: the tokenizer writes a space before the first word that is not text.
    """

    def __init__(
        self,
        *,
        stop: Sequence[str] = (),
        thinking_markers: tuple[str, str] | None = None,
        opens_reasoning: bool = False,
        trims_leading_space: bool = False,
    ) -> None:
        from mlx_lm.generate import TextStateMachine

        # Each stop sequence leads to a state of its own, which tells later which one it was.
        self._ends = {f"ended by {place}": text for place, text in enumerate(stop)}
        self._machine = TextStateMachine(_transitions(self._ends, thinking_markers))
        start = _REASONING if opens_reasoning else _NORMAL
        self._state = self._machine.make_state(start)
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._trims = trims_leading_space
        self._skip_newlines = start == _REASONING

    @property
    def is_reasoning(self) -> bool:
        """The text is inside a thinking block now."""
        return bool(self._state[0] == _REASONING)

    def add(self, token_bytes: bytes) -> TextPiece:
        """Take the bytes of one more token."""
        return self._split(self._utf8.decode(token_bytes))

    def end_thinking(self) -> TextPiece:
        """Leave the thinking block here; what was held back of it comes out."""
        self._state, held, _ = self._machine.flush(self._state)
        self._state = self._machine.make_state(_NORMAL)
        self._utf8.reset()
        self._skip_newlines = True
        return TextPiece(reasoning=held)

    def finish(self, *, is_complete: bool) -> TextPiece:
        """What was held back: a character cut in half is dropped unless the text `is_complete`."""
        tail = self._split(self._utf8.decode(b"", final=True) if is_complete else "")
        if tail.is_stopped:
            return tail
        where = self._state[0]
        self._state, held, _ = self._machine.flush(self._state)
        if where == _REASONING:
            return TextPiece(tail.text, tail.reasoning + held)
        return TextPiece(tail.text + self._tidy(held), tail.reasoning)

    def _split(self, chars: str) -> TextPiece:
        if (known := self._ends.get(self._state[0])) is not None:  # stopped before
            return TextPiece(stop_sequence=known)
        self._state, segments = self._machine.split(self._state, chars)
        text = reasoning = ""
        for where, part in segments:
            if where == _REASONING:
                reasoning += part
                self._skip_newlines = True
            elif where == _NORMAL:
                text += self._tidy(part)
        return TextPiece(text, reasoning, self._ends.get(self._state[0]))

    def _tidy(self, text: str) -> str:
        """Drop the line breaks after a thinking block and the tokenizer's own leading space."""
        if self._skip_newlines and text:
            text = text.lstrip("\n")
            self._skip_newlines = not text
        if self._trims and text:
            text = text.removeprefix(" ")
            self._trims = False
        return text


def _transitions(
    stops: Mapping[str, str], thinking_markers: tuple[str, str] | None
) -> dict[str, list[tuple[str, str]]]:
    """The edges of the state machine: from the state after a stop sequence there are none."""
    ends = [(text, state) for state, text in stops.items()]
    normal, reasoning = list(ends), list(ends)
    if thinking_markers is not None:
        opening, closing = thinking_markers
        normal.append((opening, _REASONING))
        reasoning.append((closing, _NORMAL))
    return {_NORMAL: normal, _REASONING: reasoning, **{state: [] for state in stops}}
