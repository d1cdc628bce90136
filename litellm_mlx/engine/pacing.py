"""How many prompt tokens are prefilled between two decode steps, so that streams keep flowing.

A prompt's prefill stops every row that decodes for as long as it takes, so it goes in chunks whose
size is found by measuring: a chunk may take about as long as `pause_steps` decode steps. With the
default of 1.5 the time between two tokens of a stream grows to 2.5 times what it was while a prompt
arrives (where the device is quick enough for the smallest chunk, see below), and that prompt gets
three fifths of the device. What that costs: a pass over few tokens reads all weights like one over
many, so the prompt takes about twice as long as it would alone. Raise `prefill_pause_steps` where
streams need not be smooth. Where no row that decodes is streamed, only the total counts, and the
pause is eight times as long.

A chunk has 8 tokens at least, or a prompt would take for ever on a device where even those are too
many: on 2 cores, where each token attends to thousands of others, they are.

Pure Python: the worker measures and obeys, nothing here knows the device.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median

# So that a prompt comes to its end on any device, and the first chunk is harmless.
MIN_CHUNK_TOKENS = 8
# A long prompt and, beside it, one that may be short; more would only all end later, unless
# there are tokens enough for each.
_MIN_ROWS = 2
_TOKENS_PER_ROW = 64
# Where nobody reads along: chunks of a few hundred tokens on 2 cores, which no longer one beats.
_UNREAD_PATIENCE = 8
# From one chunk to the next. A token of a larger chunk costs less, so this is for hiccups only.
_MAX_GROWTH = 4
# Decode steps whose median is the usual one: one that waited for a mask or a copy does not count.
_NUM_DECODE_STEPS = 15
# Of the newest chunk in what a token costs; half, so that chunks settle within a few steps.
_NEWEST_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Load:
    """What is going on beside the prompts that are prefilled.

    Attributes:
        num_decoding: sequences that stand still during a chunk.
        num_pending: sequences that would decode, too, if their prompts were through.
        is_streamed: someone reads along with one that decodes.
    """

    num_decoding: int
    num_pending: int
    is_streamed: bool = True

    @property
    def patience(self) -> float:
        """How many times the usual pause is right.

        Where those that wait outnumber those that decode, a longer one costs less than it gains.
        """
        usual = 1 if self.is_streamed else _UNREAD_PATIENCE
        return usual * max(1.0, self.num_pending / self.num_decoding)


class Pacer:
    """Finds the size of prefill chunks. For the engine's thread only.

    Args:
        step_tokens: of one row at most, and always where nothing decodes.
        pause_steps: how many decode steps a chunk may take where few wait and someone reads along.
    """

    def __init__(self, step_tokens: int, pause_steps: float) -> None:
        self._step_tokens = step_tokens
        self._pause_steps = pause_steps
        self._decode_s: deque[float] = deque(maxlen=_NUM_DECODE_STEPS)
        self._token_s: float | None = None
        self._last_tokens = 0

    def chunk_tokens(self, num_rows: int, load: Load) -> int:
        """How many tokens of each row to prefill now, at least one; of `num_rows` prompts."""
        if load.num_decoding == 0:
            return self._step_tokens
        return min(self._step_tokens, max(1, self._total_tokens(load) // num_rows))

    def num_rows(self, max_rows: int, load: Load) -> int:
        """How many prompts to prefill side by side, `max_rows` at most."""
        if load.num_decoding == 0:
            return max_rows
        return min(max_rows, max(_MIN_ROWS, self._total_tokens(load) // _TOKENS_PER_ROW))

    def _total_tokens(self, load: Load) -> int:
        """Tokens of all rows in one chunk; not many times as many as in the last one."""
        if not self._decode_s or self._token_s is None:
            return MIN_CHUNK_TOKENS
        allowed_s = self._pause_steps * load.patience * median(self._decode_s)
        most = _MAX_GROWTH * self._last_tokens
        return max(MIN_CHUNK_TOKENS, min(int(allowed_s / self._token_s), most))

    def note_prefill(self, num_tokens: int, num_asked: int, seconds: float) -> None:
        """Learn from a chunk that was prefilled while others decoded.

        Args:
            num_tokens: of all rows.
            num_asked: how many they would have been, had no prompt ended.
            seconds: how long that took.
        """
        # A pass has a price of its own, so the rest of a prompt says nothing of a whole chunk.
        if num_tokens == 0 or 2 * num_tokens < num_asked:
            return
        newest = seconds / num_tokens
        known = newest if self._token_s is None else self._token_s
        self._token_s = _NEWEST_SHARE * newest + (1 - _NEWEST_SHARE) * known
        self._last_tokens = num_asked

    def note_decode(self, seconds: float) -> None:
        """Learn how long a decode step takes, prefill not counted."""
        self._decode_s.append(seconds)
