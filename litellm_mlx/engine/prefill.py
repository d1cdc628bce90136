"""The batch that prefills prompts, a row per request, beginning with what is cached of each.

A finished row is copied once for each of its request's completions, which decode elsewhere.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from litellm_mlx.engine.sequence import RunningRequest, Sequence
from litellm_mlx.kvcache.prefix_cache import PrefixCache
from litellm_mlx.kvcache.separate import Rows

# Narrower passes cost too much per token: SmolLM2 on 2 cores takes 59 ms for 1, 87 ms for 16 and
# 204 ms for 64 (OpenBLAS, November 2026).
_MIN_WIDTH = 16


class PrefillBatch:
    """Prompts on their way through the model, in steps of a bounded number of tokens.

    Args:
        model: see `ServedModel`.
        prefixes: where rows begin, and where they are stored when they are through.
    """

    def __init__(self, model: Any, prefixes: PrefixCache) -> None:
        self._model = model
        self._prefixes = prefixes
        self._cache: Rows | None = None
        self._borders: dict[RunningRequest, list[int]] = {}
        self.rows: list[RunningRequest] = []

    def add(self, rows: list[RunningRequest]) -> None:
        """Append new rows, with what is cached of their prompts."""
        prompts = [row.request.prompt_token_ids for row in rows]
        new = self._prefixes.begin(prompts)
        for row, prompt, length in zip(rows, prompts, new.lengths, strict=True):
            row.num_prefilled = row.num_cached = length
            self._borders[row] = self._prefixes.borders(prompt)
        if self._cache is None:
            self._cache = new
        else:
            self._cache.extend(new)
        self.rows.extend(rows)

    def step(self, step_tokens: int) -> int:
        """Run each row's next tokens through the model; its last token is left to decoding.

        Where a row has nothing left, nothing is run: it can be taken first. A model that takes
        padding for tokens gets none: its rows bring as many as the one that has the fewest left.

        Args:
            step_tokens: how many of each row at most.

        Returns:
            How many of all rows it were.
        """
        ends = [self._chunk_end(row, step_tokens) for row in self.rows]
        counts = [end - row.num_prefilled for row, end in zip(self.rows, ends, strict=True)]
        if min(counts) == 0:
            return 0
        if self._prefixes.batching == "unpadded":
            counts = [min(counts)] * len(counts)
        elif max(counts) > 2 * min(counts):
            # No work on padding, and what is mostly cached does not wait for what is not.
            width = max(min(counts), _MIN_WIDTH)
            counts = [min(count, width) for count in counts]
        width = max(counts)
        chunks = [_tokens(row, count) for row, count in zip(self.rows, counts, strict=True)]
        assert self._cache is not None
        tokens = mx.array([chunk + [0] * (width - len(chunk)) for chunk in chunks])
        self._cache.run(self._model, tokens, counts)  # (B, width)
        self._cache.evaluate()
        for i, (row, count) in enumerate(zip(self.rows, counts, strict=True)):
            row.num_prefilled += count
            if _num_left(row) == 0 or row.num_prefilled in self._borders[row]:
                self._store(i)
        return sum(counts)

    def leave_rest(self, at_most: int) -> int:
        """Let the only row's first decode pass take the rest of its prompt, and save one pass.

        Args:
            at_most: tokens of the rest; where it has more, nothing is left.

        Returns:
            How many tokens besides the last it were, which decoding takes anyway.
        """
        (row,) = self.rows
        (sequence,) = row.sequences
        rest = row.request.prompt_token_ids[row.num_prefilled :]
        if len(rest) > at_most:
            return 0
        row.num_left_to_decoding = len(rest)
        sequence.waiting_token_ids = list(rest)
        return len(rest) - 1

    def take_finished(self) -> tuple[list[Sequence], Rows | None]:
        """Remove the rows whose prompt is through: their sequences and one cache row for each."""
        finished = [i for i, row in enumerate(self.rows) if _num_left(row) == 0]
        if not finished:
            return [], None
        assert self._cache is not None
        sequences = [s for i in finished for s in self.rows[i].sequences]
        copies = [i for i in finished for _ in self.rows[i].sequences]
        if len(finished) == len(self.rows):  # the usual case: nothing stays, so nothing is copied
            cache, self._cache, self.rows = self._cache, None, []
            self._borders.clear()
            if copies != finished:
                cache.keep(copies)
            return sequences, cache
        cache = self._cache.copy_of(copies)
        self.keep([i for i in range(len(self.rows)) if i not in set(finished)])
        return sequences, cache

    def abandon(self, rows: list[int]) -> None:
        """Drop rows whose callers have left; what the model has seen of them stays cached."""
        for row in rows:
            self._store(row)
        self.keep([i for i in range(len(self.rows)) if i not in set(rows)])

    def keep(self, rows: list[int]) -> None:
        """Drop all rows but these."""
        self.rows = [self.rows[i] for i in rows]
        self._borders = {row: self._borders[row] for row in self.rows}
        if not rows:
            self._cache = None
        elif self._cache is not None:
            self._cache.keep(rows)

    @property
    def num_bytes(self) -> int:
        """Bytes of the KV cache."""
        return 0 if self._cache is None else self._cache.num_bytes

    def _chunk_end(self, row: RunningRequest, step_tokens: int) -> int:
        """Where the row's next pass may end."""
        start = row.num_prefilled
        end = start + min(_num_left(row), step_tokens)
        return min([end, *(border for border in self._borders[row] if border > start)])

    def _store(self, index: int) -> None:
        """Keep what a row holds now for later requests; a whole prompt pins its session."""
        assert self._cache is not None
        row = self.rows[index]
        key = row.request.cache_key if _num_left(row) == 0 else None
        tokens = row.request.prompt_token_ids[: row.num_prefilled]
        self._prefixes.store(tokens, self._cache, index, key=key)


def _tokens(row: RunningRequest, count: int) -> list[int]:
    """The next tokens of a prompt."""
    start = row.num_prefilled
    return list(row.request.prompt_token_ids[start : start + count])


def _num_left(row: RunningRequest) -> int:
    """Prompt tokens still to prefill here."""
    return len(row.request.prompt_token_ids) - row.num_left_to_decoding - row.num_prefilled
