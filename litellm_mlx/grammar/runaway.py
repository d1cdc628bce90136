"""Strings that do not stop: endless whitespace, endless repetition, or simply too long.

A small model at temperature 0 may fill a JSON string until the token budget is gone. Owns when a
string is one of these and which tokens it may still take; the text around strings is the guide's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from litellm_mlx.grammar.number_limit import State, advance

if TYPE_CHECKING:
    import numpy as np

    from litellm_mlx.config import EngineConfig
    from litellm_mlx.grammar.guide import JsonPlace
    from litellm_mlx.grammar.vocabulary import Vocabulary

    Bitmask = np.ndarray[Any, np.dtype[np.int32]]

# A text that comes four times in a row at once may be a refrain or a row of zeros; the length
# that is asked of it besides (`max_repetition`) spares rulers, dotted lines and short lists.
MIN_REPEATS = 4
# The longest text whose repetition is noticed. Small models repeat sentences and short lists.
MAX_PERIOD_BYTES = 512
# Repetition is looked for after each so many tokens; a look costs about 1 us.
LOOK_EVERY_TOKENS = 8

_WHITE = (b" ", b"\t", b"\r", b"\n")
_WHITE_ESCAPES = (rb"\t", rb"\r", rb"\n")


@dataclass(frozen=True, slots=True)
class StringLimits:
    """What a JSON string may do; 0 is without limit. See `EngineConfig` for the defaults."""

    max_whitespace_run: int = 0
    max_repetition: int = 0
    max_string_tokens: int = 0

    @classmethod
    def of(cls, config: EngineConfig) -> StringLimits:
        """Take the limits from the engine's settings."""
        return cls(config.max_whitespace_run, config.max_repetition, config.max_string_tokens)


class StringWatch:
    """Follows the strings of one JSON text, token by token."""

    def __init__(self, limits: StringLimits, vocabulary: Vocabulary) -> None:
        """Start outside a string."""
        self._limits = limits
        self._vocabulary = vocabulary
        self._text = b""  # the end of the string so far
        self._num_tokens = 0
        self._is_repeating = False

    def add(self, token: bytes, place: JsonPlace | None) -> None:
        """Take the next token; `place` is where the text is after it."""
        if place is None or not place.is_in_string:
            self._start()
            return
        self._num_tokens += 1
        self._text = (self._text + token)[-(MIN_REPEATS + 1) * MAX_PERIOD_BYTES :]
        if self._num_tokens % LOOK_EVERY_TOKENS == 0:
            self._is_repeating = self._repeats()

    def narrow(self, row: Bitmask) -> None:
        """Clear the tokens with which the string would run on, unless the grammar wants them."""
        if self._num_tokens == 0:
            return
        limit = self._limits.max_string_tokens
        if self._is_repeating or 0 < limit <= self._num_tokens:
            keep_closing(row, self._vocabulary)
        elif self._has_whitespace_run():
            others = row & ~self._vocabulary.derived("white_tokens", _white_tokens)
            if others.any():
                row[:] = others

    def _start(self) -> None:
        self._text = b""
        self._num_tokens = 0
        self._is_repeating = False

    def _has_whitespace_run(self) -> bool:
        """The text ends in as much whitespace as it may have; an escape is one character."""
        limit, text, end = self._limits.max_whitespace_run, self._text, len(self._text)
        for _ in range(limit):
            if text[end - 1 : end] in _WHITE:
                end -= 1
            elif text[end - 2 : end] in _WHITE_ESCAPES:
                end -= 2
            else:
                return False
        return limit > 0

    def _repeats(self) -> bool:
        """The text ends in one piece again and again."""
        text, limit = self._text, self._limits.max_repetition
        if not 0 < limit <= len(text):
            return False
        ending = text[-min(32, limit) :]
        earlier = text.rfind(ending, 0, len(text) - 1)
        period = len(text) - len(ending) - earlier
        span = max(limit, MIN_REPEATS * period)
        is_whole = earlier >= 0 and period <= MAX_PERIOD_BYTES and span <= len(text)
        return is_whole and text[-span:-period] == text[-span + period :]


def keep_closing(row: Bitmask, vocabulary: Vocabulary) -> None:
    """Clear all tokens but those that close the string, unless none of these is allowed."""
    closing = row & vocabulary.derived("string_closers", _string_closers)
    if closing.any():
        row[:] = closing


def _string_closers(vocabulary: Vocabulary) -> Bitmask:
    """The tokens that hold a quote which ends a string; seen from inside one."""
    return vocabulary.bitmask(
        i
        for i in range(vocabulary.tokenizer_vocab_size)
        if b'"' in (token := vocabulary.token_bytes(i)) and _ends_string(token)
    )


def _ends_string(token: bytes) -> bool:
    state = State("string")
    for byte in token:
        state = advance(state, bytes([byte]))
        if state.part not in ("string", "escape"):
            return True
    return False


def _white_tokens(vocabulary: Vocabulary) -> Bitmask:
    """The tokens that begin with whitespace, or with a backslash, which may begin some."""
    white = (*_WHITE, b"\\")
    ids = range(vocabulary.tokenizer_vocab_size)
    return vocabulary.bitmask(i for i in ids if vocabulary.token_bytes(i).startswith(white))
