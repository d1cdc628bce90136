"""How many prompt tokens are prefilled between two decode steps, so that streams keep flowing.

A prompt's prefill stops every row that decodes for as long as it takes, so it goes in chunks whose
size is found by measuring: a chunk may take about as long as `pause_steps` decode steps. With the
default of 1.5 the time between two tokens of a stream grows to 2.5 times what it was while a
prompt arrives, and that prompt gets three fifths of the device. What that costs: a pass over few
tokens reads all weights like one over many, so the prompt takes about twice as long as it would
alone. Raise `prefill_pause_steps` where answers are not streamed and only the total counts. A
chunk has 8 tokens at least, or a prompt would take for ever on a device where even those are too
many: on 2 cores, where each token attends to thousands of others, they are.

Pure Python: the worker measures and obeys, nothing here knows the device.
"""

from __future__ import annotations

from collections import deque
from statistics import median

# So that a prompt comes to its end on any device, and the first chunk is harmless.
MIN_CHUNK_TOKENS = 8
# A long prompt and, beside it, one that may be short; more would only all end later, unless
# there are tokens enough for each.
_MIN_ROWS = 2
_TOKENS_PER_ROW = 64
# Decode steps whose median is the usual one: one that waited for a mask or a copy does not count.
_NUM_DECODE_STEPS = 15
# Of the newest chunk in what a token costs; half, so that chunks settle within a few steps.
_NEWEST_SHARE = 0.5


class Pacer:
    """Finds the size of prefill chunks. For the engine's thread only.

    Args:
        step_tokens: of one row at most, and always where nothing decodes.
        pause_steps: how many decode steps a chunk may take where few wait.
    """

    def __init__(self, step_tokens: int, pause_steps: float) -> None:
        self._step_tokens = step_tokens
        self._pause_steps = pause_steps
        self._decode_s: deque[float] = deque(maxlen=_NUM_DECODE_STEPS)
        self._token_s: float | None = None
        self._last_tokens = 0

    def chunk_tokens(self, num_rows: int, *, num_decoding: int, num_pending: int) -> int:
        """How many tokens of each row to prefill now; at least one.

        Args:
            num_rows: prompts that are prefilled together.
            num_decoding: sequences that stand still meanwhile.
            num_pending: sequences that would decode, too, if their prompts were through. Where
                they outnumber the others, a longer pause costs less than it gains.
        """
        if num_decoding == 0:
            return self._step_tokens
        total = self._total_tokens(max(1.0, num_pending / num_decoding))
        return min(self._step_tokens, max(1, total // num_rows))

    def num_rows(self, max_rows: int, *, num_decoding: int, num_pending: int) -> int:
        """How many prompts to prefill side by side, `max_rows` at most; see `chunk_tokens`."""
        if num_decoding == 0:
            return max_rows
        total = self._total_tokens(max(1.0, num_pending / num_decoding))
        return min(max_rows, max(_MIN_ROWS, total // _TOKENS_PER_ROW))

    def _total_tokens(self, urgency: float) -> int:
        """Tokens of all rows in one chunk; at most twice as many as in the last one."""
        if not self._decode_s or self._token_s is None:
            return MIN_CHUNK_TOKENS
        allowed_s = self._pause_steps * urgency * median(self._decode_s)
        return max(MIN_CHUNK_TOKENS, min(int(allowed_s / self._token_s), 2 * self._last_tokens))

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
