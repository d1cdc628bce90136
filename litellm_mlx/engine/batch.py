"""The batch that decodes, a row per sequence: layer caches of B rows and a forward pass over them.

Rows come with their prompts prefilled, see `prefill`.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

import mlx.core as mx

from litellm_mlx.engine.lookup import MAX_GUESS
from litellm_mlx.engine.sequence import MAX_TOKENS_PER_PASS, Sequence
from litellm_mlx.kvcache.output_head import OutputHead
from litellm_mlx.kvcache.prefix_cache import PrefixCache
from litellm_mlx.kvcache.separate import Rows

# Guessed tokens of all rows together where someone reads along with a row that is not guessed: on 2
# cores a pass over 4 rows takes 1.2 times as long with them, and 2 to 4 times with 16 for a row.
MAX_GUESSES_BESIDE_STREAMS = 8


@dataclass(frozen=True, slots=True)
class Flight:
    """A forward pass under way.

    Attributes:
        logits: (P, V), of each row's newest token, and of each that was guessed to follow it.
        guesses: of B rows, P - B in sum.
    """

    logits: mx.array
    guesses: list[list[int]]

    def logits_after(self, rows: Seq[int], num_right: Seq[int]) -> mx.array:
        """The logits (len(rows), V) of some rows, after so many guessed tokens.

        Args:
            rows: their indexes.
            num_right: how many, for each of the B rows.
        """
        if not any(self.guesses) and len(rows) == len(self.guesses):
            return self.logits
        firsts = self._firsts
        return self.logits[mx.array([firsts[row] + num_right[row] for row in rows])]

    def keep(self, rows: Seq[int]) -> Flight | None:
        """Keep these of its rows."""
        kept = [row for row in rows if row < len(self.guesses)]
        if not kept:
            return None
        firsts, guesses = self._firsts, [self.guesses[row] for row in kept]
        places = [firsts[row] + i for row in kept for i in range(1 + len(self.guesses[row]))]
        return Flight(self.logits[mx.array(places)], guesses)

    @property
    def _firsts(self) -> list[int]:
        """Where each row's logits begin."""
        return list(accumulate((1 + len(guess) for guess in self.guesses[:-1]), initial=0))


class DecodeBatch:
    """Sequences that decode together.

    Args:
        model: see `ServedModel`.
        can_pack: rows may bring different numbers of tokens into one pass, see `Pass`.
    """

    def __init__(self, model: Any, *, can_pack: bool) -> None:
        self._model = model
        self.can_pack = can_pack
        self._head = OutputHead(model)
        self._cache: Rows | None = None
        self.rows: list[Sequence] = []
        self.flight: Flight | None = None

    def join(self, rows: list[Sequence], cache: Rows) -> None:
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
            tokens, counts, guesses = self._waiting_tokens()
        else:
            joined = [row.take_waiting(1)[0] for row in self.rows[len(sampled) :]]
            parts = [sampled, mx.array(joined, dtype=sampled.dtype)] if joined else [sampled]
            tokens, counts = mx.concatenate(parts)[:, None], [1] * len(self.rows)
            guesses = [[] for _ in self.rows]
        assert self._cache is not None
        num_wanted = [1 + len(guess) for guess in guesses]
        logits = self._head.logits(self._model, self._cache, tokens, counts, num_wanted)
        self.flight = Flight(logits, guesses)
        mx.async_eval(logits)

    def _waiting_tokens(self) -> tuple[mx.array, list[int], list[list[int]]]:
        """What the rows have waiting, each one's guess behind it.

        Returns:
            The tokens, packed, of a single row (1, W); how many each row has; its guess.
        """
        is_alone = len(self.rows) == 1  # then nobody waits for a long pass
        at_most = MAX_TOKENS_PER_PASS if self.can_pack else 1
        max_guess = self._max_guess()
        assert self._cache is not None
        can_take_back = self.can_pack or (is_alone and self._cache.is_plain)
        parts: list[list[int]] = []
        guesses: list[list[int]] = []
        for row in self.rows:
            taken = row.take_waiting(len(row.waiting_token_ids) if is_alone else at_most)
            room = MAX_GUESS if is_alone else min(max_guess, at_most - len(taken))
            can_guess = can_take_back and row.is_ready
            guesses.append(row.guess(room, is_alone=is_alone) if can_guess else [])
            parts.append(taken + guesses[-1])
        tokens = mx.array(list(chain.from_iterable(parts)))
        return tokens[None] if is_alone else tokens[:, None], list(map(len, parts)), guesses

    def _max_guess(self) -> int:
        """How many tokens of a row may be guessed."""
        if any(row.request.is_streamed and not row.can_guess for row in self.rows):
            num_guessing = sum(row.can_guess for row in self.rows)
            return MAX_GUESSES_BESIDE_STREAMS // max(num_guessing, 1)
        return MAX_GUESS

    def land(self, num_right: Seq[int]) -> None:
        """End the pass in flight: the cache forgets the guessed tokens that were wrong.

        Args:
            num_right: how many of its guess were right, by row.
        """
        assert self.flight is not None and self._cache is not None
        if any(self.flight.guesses):
            pairs = zip(self.flight.guesses, num_right, strict=True)
            wrong = [len(guess) - right for guess, right in pairs]
            self._cache.take_back([*wrong, *[0] * (len(self.rows) - len(wrong))])
        self.flight = None

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
        if self.flight is not None:
            self.flight = self.flight.keep(rows)

    @property
    def num_bytes(self) -> int:
        """Bytes of the KV cache."""
        return 0 if self._cache is None else self._cache.num_bytes


def _kept(cache: Rows | None, rows: Seq[int]) -> Rows | None:
    if cache is None or not rows:
        return None
    cache.keep(rows)
    return cache
