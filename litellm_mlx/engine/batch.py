"""The batch that decodes, a row per sequence: layer caches of B rows and a forward pass over them.

Rows come with their prompts prefilled, see `prefill`.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any

import mlx.core as mx

from litellm_mlx.engine.sequence import MAX_TOKENS_PER_PASS, Sequence
from litellm_mlx.kvcache.layers import BatchCache
from litellm_mlx.kvcache.output_head import OutputHead
from litellm_mlx.kvcache.prefix_cache import PrefixCache


class DecodeBatch:
    """Sequences that decode together.

    `logits` (B, V) holds the pass in flight, of each row's newest token in it.

    Args:
        model: see `ServedModel`.
        can_pack: rows may bring different numbers of tokens into one pass, see `Pass`.
    """

    def __init__(self, model: Any, *, can_pack: bool) -> None:
        self._model = model
        self.can_pack = can_pack
        self._head = OutputHead(model)
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
        self.logits = self._head.logits(self._model, self._cache, tokens, counts)
        mx.async_eval(self.logits)

    def _waiting_tokens(self) -> tuple[mx.array, list[int]]:
        """All waiting tokens, packed; one of each row where rows cannot be packed."""
        if len(self.rows) == 1:  # nobody waits for it
            alone = self.rows[0].take_waiting(len(self.rows[0].waiting_token_ids))
            return mx.array([alone]), [len(alone)]
        at_most = MAX_TOKENS_PER_PASS if self.can_pack else 1
        waiting = [row.take_waiting(at_most) for row in self.rows]
        counts = [len(tokens) for tokens in waiting]
        return mx.array([[token] for tokens in waiting for token in tokens]), counts

    def store(self, index: int, prefixes: PrefixCache) -> None:
        """Keep what the model has seen of a row for later requests, its next turn above all."""
        assert self._cache is not None
        row = self.rows[index]
        tokens = (*row.request.prompt_token_ids, *row.token_ids)[: self._cache.lengths[index]]
        if row.guide is not None and not row.must_be_read:
            # The pass may have taken a token that the budget's ending replaced.
            tokens = tokens[:-1]
        key = row.request.cache_key if row.index == 0 else None
        prefixes.store(tokens, self._cache, index, key=key)

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
