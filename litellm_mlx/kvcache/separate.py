"""Rows of a model that cannot run several at once: each has caches and passes of its own.

To whoever asks it is a batch like any other: rows join and leave, share what is cached, and go
forward together, a pass of the model for each. So nobody waits for another's last token.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from litellm_mlx.kvcache.layers import BatchCache


class SeparateRows:
    """What `BatchCache` is, made of one for each row.

    Args:
        rows: batches of a single row.
    """

    is_single = False

    def __init__(self, rows: list[BatchCache]) -> None:
        self._rows = rows

    @classmethod
    def new(cls, model: Any, num_rows: int) -> SeparateRows:
        """Empty caches for `num_rows` sequences of `model`."""
        return cls([BatchCache.single(model) for _ in range(num_rows)])

    @property
    def lengths(self) -> list[int]:
        """Tokens that each row holds."""
        return [row.lengths[0] for row in self._rows]

    @property
    def is_plain(self) -> bool:
        """See `BatchCache`."""
        return all(row.is_plain for row in self._rows)

    @property
    def num_bytes(self) -> int:
        """Bytes of all arrays. Any thread may ask."""
        return sum(row.num_bytes for row in tuple(self._rows))

    def run(self, model: Any, tokens: mx.array, counts: Sequence[int]) -> mx.array:
        """Run new tokens of each row through the model; nothing is evaluated yet.

        Args:
            model: the caches are of.
            tokens: (B, W), filled up at the end of each row.
            counts: B numbers of tokens.

        Returns:
            (B, W, V) logits, zeros where there is no token.
        """
        width = tokens.shape[1]
        logits = [
            row.run(model, tokens[i : i + 1, :count], [count])
            for i, (row, count) in enumerate(zip(self._rows, counts, strict=True))
        ]
        padded = [
            mx.pad(own, [(0, 0), (0, width - count), (0, 0)])
            for own, count in zip(logits, counts, strict=True)
        ]
        return mx.concatenate(padded)

    def place(self, row: int) -> tuple[BatchCache, int]:
        """The batch that holds a row, and which of its rows it is."""
        return self._rows[row], 0

    def evaluate(self) -> None:
        """Wait until the caches hold what was run."""
        mx.eval([layer.state for row in self._rows for layer in row.layers])

    def extend(self, other: object) -> None:
        """Append the rows of another one, which is not to be used any more."""
        assert isinstance(other, SeparateRows)
        self._rows = self._rows + other._rows

    def take_back(self, counts: Sequence[int]) -> None:
        """Forget the last tokens of each row, so many. Only where `is_plain`."""
        for row, count in zip(self._rows, counts, strict=True):
            row.take_back([count])

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows in this order; one named twice is copied. At least one."""
        taken: set[int] = set()
        kept = []
        for row in rows:
            kept.append(copy.deepcopy(self._rows[row]) if row in taken else self._rows[row])
            taken.add(row)
        self._rows = kept

    def copy_of(self, rows: Sequence[int]) -> SeparateRows:
        """Give `rows` as a batch of their own."""
        return SeparateRows([copy.deepcopy(self._rows[row]) for row in rows])


Rows = BatchCache | SeparateRows
