"""Text that does not stop: endless whitespace, endless repetition, or a string that is too long.

A small model at temperature 0 may fill a JSON string, or the free text of a structure, until the
token budget is gone. Owns when a text is one of these and which tokens it may still take; all other
text is the guide's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from litellm_mlx.grammar.landmarks import landmarks_of
from litellm_mlx.grammar.number_limit import State, advance

if TYPE_CHECKING:
    import numpy as np

    from litellm_mlx.config import EngineConfig
    from litellm_mlx.grammar.guide import Guide, JsonPlace
    from litellm_mlx.grammar.vocabulary import Vocabulary
    from litellm_mlx.types import Constraint

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
    """What a text may do; 0 is without limit. See `EngineConfig` for the defaults.

    `max_string_tokens` is of JSON strings only.
    """

    max_whitespace_run: int = 0
    max_repetition: int = 0
    max_string_tokens: int = 0

    @classmethod
    def of(cls, config: EngineConfig) -> StringLimits:
        """Take the limits from the engine's settings."""
        return cls(config.max_whitespace_run, config.max_repetition, config.max_string_tokens)


class StringWatch:
    """Follows the strings and the free texts of one completion, token by token.

    Args:
        limits: what they may do.
        constraint: of the completion.
        vocabulary: of the model.
    """

    def __init__(
        self, limits: StringLimits, constraint: Constraint, vocabulary: Vocabulary
    ) -> None:
        self._limits = limits
        self._constraint = constraint
        self._vocabulary = vocabulary
        self._text = b""  # the end of the string so far
        self._num_tokens = 0
        self._is_free = False
        self._is_repeating = False
        self._way_out: tuple[int, ...] = ()

    def add(self, token_id: int, place: JsonPlace | None) -> None:
        """Take the next token; `place` is where the text is after it, `None` outside of JSON."""
        self._way_out = self._way_out[1:] if self._way_out[:1] == (token_id,) else ()
        is_free = place is None
        if is_free != self._is_free or (place is not None and not place.is_in_string):
            self._start(is_free=is_free)
            return
        token = self._vocabulary.token_bytes(token_id)
        self._num_tokens += 1
        self._text = (self._text + token)[-(MIN_REPEATS + 1) * MAX_PERIOD_BYTES :]
        if self._num_tokens % LOOK_EVERY_TOKENS == 0:
            self._is_repeating = self._repeats()

    def narrow(self, row: Bitmask, guide: Guide) -> None:
        """Clear the tokens with which the text would run on, unless the grammar wants them."""
        if self._way_out:
            row[:] = self._vocabulary.bitmask(self._way_out[:1])
            return
        if self._num_tokens == 0:
            return
        limit = self._limits.max_string_tokens
        if self._is_repeating and self._is_free:
            self._leave(row, guide)
        elif self._is_repeating or (0 < limit <= self._num_tokens and not self._is_free):
            keep_closing(row, self._vocabulary)
        elif self._has_whitespace_run():
            others = row & ~self._vocabulary.derived("white_tokens", _white_tokens)
            if others.any():
                row[:] = others

    def _leave(self, row: Bitmask, guide: Guide) -> None:
        """End a free text: stop where the whole may end, else write what must follow it."""
        stops = row & self._vocabulary.bitmask(self._vocabulary.stop_token_ids)
        if guide.is_accepting and stops.any():
            row[:] = stops
            return
        ways = landmarks_of(self._constraint).ways_out_in_tokens(self._vocabulary)
        self._way_out = next((tokens for tokens in ways if tokens and guide.allows(tokens)), ())
        if self._way_out:
            row[:] = self._vocabulary.bitmask(self._way_out[:1])

    def _start(self, *, is_free: bool) -> None:
        self._text = b""
        self._num_tokens = 0
        self._is_free = is_free
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
