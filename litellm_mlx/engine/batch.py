"""The batch on the MLX thread: layer caches of B rows and one forward pass over them.

Two batches exist: one that prefills prompts, a row per request, and one that decodes, a row per
sequence. A finished prefill row is copied once for each of its request's completions.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any

import mlx.core as mx

from litellm_mlx.engine.sequence import RunningRequest, Sequence
from litellm_mlx.kvcache.layers import (
    LayerCache,
    extend_caches,
    new_caches,
    num_bytes,
    select_rows,
)


class PrefillBatch:
    """Prompts on their way through the model, in steps of a bounded number of tokens per row."""

    def __init__(self, model: Any, step_tokens: int) -> None:
        self._model = model
        self._step_tokens = step_tokens
        self._caches: list[LayerCache] = []
        self.rows: list[RunningRequest] = []

    def add(self, rows: list[RunningRequest]) -> None:
        """Append new rows."""
        self._caches = extend_caches(self._caches, new_caches(self._model, len(rows)))
        self.rows.extend(rows)

    def step(self) -> None:
        """Run each row's next tokens through the model; its last token is left to decoding."""
        chunks = [self._next_chunk(row) for row in self.rows]
        lengths = [len(chunk) for chunk in chunks]
        width = max(lengths)
        if width == 0:
            return
        padding = [width - length for length in lengths]
        if any(padding):
            for cache in self._caches:
                cache.prepare(lengths=lengths, right_padding=padding)
        tokens = mx.array([chunk + [0] * pad for chunk, pad in zip(chunks, padding, strict=True)])
        self._model(tokens, cache=self._caches)  # (B, width)
        if any(padding):
            for cache in self._caches:
                cache.finalize()
        mx.eval([cache.state for cache in self._caches])
        for row, length in zip(self.rows, lengths, strict=True):
            row.num_prefilled += length

    def take_finished(self) -> tuple[list[Sequence], list[LayerCache]]:
        """Remove the rows whose prompt is through: their sequences and one cache row for each."""
        finished = [i for i, row in enumerate(self.rows) if _num_left(row) == 0]
        if not finished:
            return [], []
        sequences = [s for i in finished for s in self.rows[i].sequences]
        copies = [i for i in finished for _ in self.rows[i].sequences]
        if len(finished) == len(self.rows):  # the usual case: nothing stays, so nothing is copied
            caches, self._caches, self.rows = self._caches, [], []
            unchanged = copies == finished
            return sequences, caches if unchanged else select_rows(caches, copies)
        caches = _copy_rows(self._caches, copies)
        self.keep([i for i in range(len(self.rows)) if i not in set(finished)])
        return sequences, caches

    def keep(self, rows: list[int]) -> None:
        """Drop all rows but these."""
        self._caches = select_rows(self._caches, rows)
        self.rows = [self.rows[i] for i in rows]

    @property
    def num_bytes(self) -> int:
        """Bytes of the KV cache."""
        return num_bytes(self._caches)

    def _next_chunk(self, row: RunningRequest) -> list[int]:
        start = row.num_prefilled
        length = min(_num_left(row), self._step_tokens)
        return list(row.request.prompt_token_ids[start : start + length])


class DecodeBatch:
    """Sequences that decode together, one token per row and step, one forward pass ahead.

    `logits` holds the pass in flight for `rows`. It is dispatched on tokens that the device has
    sampled and nobody has read yet, so the device never waits for Python; the price is a pass
    wasted on a row whose token turns out to end it.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._caches: list[LayerCache] = []
        self.rows: list[Sequence] = []
        self.logits: mx.array | None = None  # (B, V)

    def dispatch(
        self, tokens: mx.array | None, joining: list[Sequence], caches: list[LayerCache]
    ) -> None:
        """Start the next forward pass.

        Args:
            tokens: (B,) newest tokens of `rows`, `None` when there are no rows yet.
            joining: rows whose prompts are in `caches`; they come after the others.
            caches: layer caches of the joining rows.
        """
        inputs = [] if tokens is None else [tokens]
        if joining:
            last = [row.request.prompt_token_ids[-1] for row in joining]
            inputs.append(mx.array(last, dtype=mx.uint32))
            self._caches = extend_caches(self._caches, caches)
            self.rows.extend(joining)
        self.logits = self._model(mx.concatenate(inputs)[:, None], cache=self._caches)[:, -1, :]
        mx.async_eval(self.logits)

    def keep(self, rows: Seq[int]) -> None:
        """Drop all rows but these."""
        self._caches = select_rows(self._caches, rows)
        self.rows = [self.rows[i] for i in rows]
        if self.logits is not None:
            self.logits = self.logits[mx.array(list(rows))] if rows else None

    @property
    def num_bytes(self) -> int:
        """Bytes of the KV cache."""
        return num_bytes(self._caches)


def _num_left(row: RunningRequest) -> int:
    """Prompt tokens still to prefill; the last one is decoding's first input."""
    return len(row.request.prompt_token_ids) - 1 - row.num_prefilled


def _copy_rows(caches: list[LayerCache], rows: list[int]) -> list[LayerCache]:
    """`rows` of the caches as caches of their own."""
    import copy

    # The arrays are immutable values to MLX, so the copy shares them until one side changes.
    return select_rows(copy.deepcopy(caches), rows)
