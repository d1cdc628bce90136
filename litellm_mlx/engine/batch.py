"""The batch on the MLX thread: layer caches of B rows and one forward pass over them.

Two batches exist: one that prefills prompts, a row per request, and one that decodes, a row per
sequence. A finished prefill row is copied once for each of its request's completions.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any

import mlx.core as mx

from litellm_mlx.engine.sequence import RunningRequest, Sequence
from litellm_mlx.kvcache.layers import BatchCache

# Of one row's forced tokens; more wait for the next pass.
MAX_TOKENS_PER_PASS = 64


class PrefillBatch:
    """Prompts on their way through the model, in steps of a bounded number of tokens."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._cache: BatchCache | None = None
        self.rows: list[RunningRequest] = []

    def add(self, rows: list[RunningRequest]) -> None:
        """Append new rows."""
        new = BatchCache.new(self._model, len(rows))
        if self._cache is None:
            self._cache = new
        else:
            self._cache.extend(new)
        self.rows.extend(rows)

    def step(self, step_tokens: int) -> int:
        """Run each row's next tokens through the model; its last token is left to decoding.

        Args:
            step_tokens: how many of each row at most.

        Returns:
            How many of all rows it were.
        """
        chunks = [_next_chunk(row, step_tokens) for row in self.rows]
        counts = [len(chunk) for chunk in chunks]
        width = max(counts)
        if width == 0:
            return 0
        assert self._cache is not None
        tokens = mx.array([chunk + [0] * (width - len(chunk)) for chunk in chunks])
        self._cache.run(self._model, tokens, counts)  # (B, width)
        self._cache.evaluate()
        for row, count in zip(self.rows, counts, strict=True):
            row.num_prefilled += count
        return sum(counts)

    def take_finished(self) -> tuple[list[Sequence], BatchCache | None]:
        """Remove the rows whose prompt is through: their sequences and one cache row for each."""
        finished = [i for i, row in enumerate(self.rows) if _num_left(row) == 0]
        if not finished:
            return [], None
        assert self._cache is not None
        sequences = [s for i in finished for s in self.rows[i].sequences]
        copies = [i for i in finished for _ in self.rows[i].sequences]
        if len(finished) == len(self.rows):  # the usual case: nothing stays, so nothing is copied
            cache, self._cache, self.rows = self._cache, None, []
            if copies != finished:
                cache.keep(copies)
            return sequences, cache
        cache = self._cache.copy_of(copies)
        self.keep([i for i in range(len(self.rows)) if i not in set(finished)])
        return sequences, cache

    def keep(self, rows: list[int]) -> None:
        """Drop all rows but these."""
        self._cache = _kept(self._cache, rows)
        self.rows = [self.rows[i] for i in rows]

    @property
    def num_bytes(self) -> int:
        """Bytes of the KV cache."""
        return 0 if self._cache is None else self._cache.num_bytes


class DecodeBatch:
    """Sequences that decode together.

    `logits` (B, V) holds the pass in flight, of each row's newest token in it.

    Args:
        model: see `ServedModel`.
        can_pack: rows may bring different numbers of tokens into one pass, see `Pass`.
    """

    def __init__(self, model: Any, *, can_pack: bool) -> None:
        self._model = model
        self._can_pack = can_pack
        self._cache: BatchCache | None = None
        self.rows: list[Sequence] = []
        self.logits: mx.array | None = None

    def join(self, rows: list[Sequence], cache: BatchCache) -> None:
        """Append rows whose prompts are in `cache`, but for the last token."""
        if self._cache is None:
            self._cache = cache
        else:
            self._cache.extend(cache)
        self.rows.extend(rows)

    def dispatch(self, sampled: mx.array | None = None) -> None:
        """Start a forward pass over the tokens that the rows have waiting.

        Args:
            sampled: (S,) tokens of the first S rows that nobody has read yet. So the device never
                waits for Python; the price is a pass wasted on a row whose token turns out to end
                it. The other rows, which have just joined, have one token each waiting.
        """
        if sampled is None:
            tokens, counts = self._waiting_tokens()
        else:
            joined = [row.take_waiting(1)[0] for row in self.rows[len(sampled) :]]
            parts = [sampled, mx.array(joined, dtype=sampled.dtype)] if joined else [sampled]
            tokens, counts = mx.concatenate(parts)[:, None], [1] * len(self.rows)
        assert self._cache is not None
        logits = self._cache.run(self._model, tokens, counts)
        if len(tokens) == len(counts):
            self.logits = logits[:, -1]
        else:
            ends = [sum(counts[: row + 1]) - 1 for row in range(len(counts))]
            self.logits = logits[mx.array(ends), 0]
        mx.async_eval(self.logits)

    def _waiting_tokens(self) -> tuple[mx.array, list[int]]:
        """All waiting tokens, packed; one of each row where rows cannot be packed."""
        is_alone = len(self.rows) == 1
        at_most = MAX_TOKENS_PER_PASS if self._can_pack or is_alone else 1
        waiting = [row.take_waiting(at_most) for row in self.rows]
        if is_alone:
            return mx.array(waiting), [len(waiting[0])]
        counts = [len(tokens) for tokens in waiting]
        return mx.array([[token] for tokens in waiting for token in tokens]), counts

    def keep(self, rows: Seq[int]) -> None:
        """Drop all rows but these."""
        self._cache = _kept(self._cache, rows)
        self.rows = [self.rows[i] for i in rows]
        if self.logits is not None:
            self.logits = self.logits[mx.array(list(rows))] if rows else None

    @property
    def num_bytes(self) -> int:
        """Bytes of the KV cache."""
        return 0 if self._cache is None else self._cache.num_bytes


def _kept(cache: BatchCache | None, rows: Seq[int]) -> BatchCache | None:
    if cache is None or not rows:
        return None
    cache.keep(rows)
    return cache


def _next_chunk(row: RunningRequest, step_tokens: int) -> list[int]:
    start = row.num_prefilled
    length = min(_num_left(row), step_tokens)
    return list(row.request.prompt_token_ids[start : start + length])


def _num_left(row: RunningRequest) -> int:
    """Prompt tokens still to prefill; the last one is decoding's first input."""
    return len(row.request.prompt_token_ids) - 1 - row.num_prefilled
