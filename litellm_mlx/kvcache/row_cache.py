"""Keys and values of B rows that each have their own length: plain attention's cache in a batch.

Every row begins in the first column. So a pass may bring each row another number of tokens, a row
may give tokens back, and rows may come and go, without moving what is there; mlx-lm's batch cache,
which ends all rows in the same column, rolls every row for that. Owns the layout of a pass, which
all layers of a batch share, and the cache of one layer. Which layers get one is `layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import mlx.core as mx

# Capacity grows by this many columns, as mlx-lm's caches do.
_STEP = 256


class Pass:
    """The new tokens of one forward pass: how many each row gets, and how they are laid out.

    Padded, the model sees (B, W): a row of tokens per sequence, filled up at the end. Packed, it
    sees (T, 1): all tokens of all rows one after another, so that no work is done on padding;
    attention puts each with its row, see `packed_attention`.
    """

    def __init__(self, starts: Sequence[int], counts: Sequence[int], *, is_packed: bool) -> None:
        self.starts = list(starts)
        self.counts = list(counts)
        self.is_packed = is_packed
        self.width = max(counts, default=0)
        # What is past a row's own end is left over from padding, and masked.
        if is_packed:
            ends = [start + count for start, count in zip(starts, counts, strict=True)]
            self.num_columns = max(ends, default=0)
        else:
            self.num_columns = max(starts, default=0) + self.width

    @property
    def is_uniform(self) -> bool:
        """All rows have the same length and get the same number of tokens."""
        return len(set(self.starts)) <= 1 and len(set(self.counts)) <= 1

    @property
    def needs_unpacking(self) -> bool:
        """Packed, and some row has more than one token."""
        return self.is_packed and self.width > 1

    @cached_property
    def offsets(self) -> mx.array | int:
        """Position of each batch row's first token, for RoPE: (B,), packed (T,), or one for all."""
        if self.is_packed:
            return self.positions
        return self.starts[0] if self.is_uniform else mx.array(self.starts)

    @cached_property
    def owners(self) -> mx.array:
        """The row of each packed token, (T,)."""
        return mx.array([row for row, count in enumerate(self.counts) for _ in range(count)])

    @cached_property
    def positions(self) -> mx.array:
        """The column of each packed token, (T,)."""
        pairs = zip(self.starts, self.counts, strict=True)
        return mx.array([column for s, c in pairs for column in range(s, s + c)])

    @cached_property
    def columns(self) -> mx.array:
        """The columns of the padded tokens, (B, W)."""
        return mx.array(self.starts)[:, None] + mx.arange(self.width)[None]

    @cached_property
    def padded_from_packed(self) -> mx.array:
        """Which packed token stands at each padded place, (B, W); some token in the padding."""
        firsts = [sum(self.counts[:row]) for row in range(len(self.counts))]
        places = [
            first + min(i, count - 1)
            for first, count in zip(firsts, self.counts, strict=True)
            for i in range(self.width)
        ]
        return mx.array(places).reshape(len(self.counts), self.width)

    @cached_property
    def packed_from_padded(self) -> mx.array:
        """Which padded place, in B * W, each packed token stands at, (T,)."""
        places = [
            row * self.width + i for row, count in enumerate(self.counts) for i in range(count)
        ]
        return mx.array(places)

    def mask(self, window: int | None = None) -> mx.array | None:
        """Which columns each padded token attends to, (B, 1, W, columns); `None`: all of them."""
        if self.is_uniform and self.width == 1 and (window is None or self.num_columns <= window):
            return None
        columns = mx.arange(self.num_columns)[None, None]
        own = self.columns[:, :, None]
        mask = columns <= own
        if window is not None:
            mask = mask & (columns > own - window)
        return mask[:, None]


class RowLayout:
    """How many tokens each row of a batch holds, and the pass that adds some; shared by layers."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = list(lengths)
        self.current = Pass([], [], is_packed=False)

    def begin(self, counts: Sequence[int], *, is_packed: bool) -> None:
        """Start a pass that brings each row so many tokens."""
        self.current = Pass(self.lengths, counts, is_packed=is_packed)

    def end(self) -> None:
        """Count the tokens of the pass."""
        self.lengths = [n + m for n, m in zip(self.lengths, self.current.counts, strict=True)]


class RowCache:
    """One layer's keys (B, heads, columns, dim) and values; what mlx-lm's models call a cache."""

    def __init__(self, layout: RowLayout) -> None:
        self.layout = layout
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    # what models ask ---------------------------------------------------------------------------

    @property
    def offset(self) -> mx.array | int:
        """Position of the first new token of each batch row."""
        return self.layout.current.offsets

    def make_mask(
        self, n: int, return_array: bool = False, window_size: int | None = None
    ) -> mx.array | str | None:
        """The mask of the pass under way, as mlx-lm's `create_attention_mask` wants it."""
        current = self.layout.current
        has_window = window_size is not None and current.num_columns > window_size
        if current.is_uniform and n > 1 and not (return_array or has_window):
            return "causal"
        return current.mask(window_size)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Add the keys and values of the pass; give all, (B, heads, columns, dim) each."""
        current = self.layout.current
        self._grow(current, keys, values)
        assert self.keys is not None and self.values is not None
        for mine, new in ((self.keys, keys), (self.values, values)):
            _write(mine, new, current)
        return self.keys_and_values()

    def keys_and_values(self) -> tuple[mx.array, mx.array]:
        """All that is held for the pass under way, as `update_and_fetch` gives it."""
        assert self.keys is not None and self.values is not None
        end = self.layout.current.num_columns
        return self.keys[..., :end, :], self.values[..., :end, :]

    def _grow(self, current: Pass, keys: mx.array, values: mx.array) -> None:
        held = 0 if self.keys is None else self.keys.shape[2]
        if current.num_columns <= held:
            return
        more = -(-(current.num_columns - held) // _STEP) * _STEP
        for name, new in (("keys", keys), ("values", values)):
            shape = (len(current.counts), new.shape[1], more, new.shape[3])
            room = mx.zeros(shape, new.dtype)
            mine = getattr(self, name)
            setattr(self, name, room if mine is None else mx.concatenate([mine, room], axis=2))

    # what the batch asks -----------------------------------------------------------------------

    @property
    def state(self) -> tuple[mx.array, ...]:
        """The arrays, to be evaluated."""
        return () if self.keys is None or self.values is None else (self.keys, self.values)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, spare columns included."""
        return sum(array.nbytes for array in self.state)

    def filter(self, keep: Sequence[int]) -> None:
        """Keep these rows, in this order; one named twice is copied. The layout is not ours."""
        rows = mx.array(list(keep))
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[rows], self.values[rows]

    def extend(self, other: RowCache) -> None:
        """Append the rows of another batch; its layout is appended to ours afterwards."""
        more = other.layout.lengths
        if other.keys is None and self.keys is None:
            return
        self.keys, self.values = (
            _joined(getattr(self, name), len(self.layout.lengths), getattr(other, name), len(more))
            for name in ("keys", "values")
        )

    def segment(self, row: int, start: int, end: int) -> tuple[mx.array, mx.array] | None:
        """Columns of one row, (1, heads, end - start, dim) each, sharing nothing with the cache.

        `None` where the layer has attention of its own and never holds anything.
        """
        if self.keys is None or self.values is None:
            return None
        place = (slice(row, row + 1), slice(None), slice(start, end))
        return mx.contiguous(self.keys[place]), mx.contiguous(self.values[place])

    def load(self, keys: mx.array, values: mx.array) -> None:
        """Hold these, (B, heads, columns, dim) each, from the first column on."""
        self.keys, self.values = keys, values


def _write(mine: mx.array, new: mx.array, current: Pass) -> None:
    """Put new keys or values where the pass has them, in place."""
    if current.is_uniform and not current.is_packed:  # (B, heads, W, dim)
        start = current.starts[0] if current.starts else 0
        mine[..., start : start + current.width, :] = new
    elif current.is_packed or current.width == 1:  # (T, heads, 1, dim)
        mine[current.owners, :, current.positions] = new[:, :, 0]
    else:
        for row, start in enumerate(current.starts):
            mine[row, :, start : start + current.width] = new[row]


def _joined(
    mine: mx.array | None, num_mine: int, theirs: mx.array | None, num_theirs: int
) -> mx.array:
    """Rows below rows, widened to the same capacity; rows that hold nothing yet have no array."""
    known = theirs if mine is None else mine
    assert known is not None
    _, num_heads, _, dim = known.shape
    width = max(array.shape[2] for array in (mine, theirs) if array is not None)

    def widened(array: mx.array | None, num_rows: int) -> mx.array:
        if array is None:
            return mx.zeros((num_rows, num_heads, width, dim), known.dtype)
        missing = width - array.shape[2]
        return array if missing == 0 else mx.pad(array, [(0, 0), (0, 0), (0, missing), (0, 0)])

    return mx.concatenate([widened(mine, num_mine), widened(theirs, num_theirs)])


def packed_attention(
    attention: Callable[..., mx.array],
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    cache: RowCache,
    **rest: Any,
) -> mx.array:
    """Attention of packed queries (T, heads, 1, dim): each with its own row, then packed again."""
    current = cache.layout.current
    padded = queries[:, :, 0][current.padded_from_packed]  # (B, W, heads, dim)
    out = attention(padded.transpose(0, 2, 1, 3), keys, values, cache, **rest)
    out = out.transpose(0, 2, 1, 3)  # (B, W, heads, dim)
    out = out.reshape(-1, *out.shape[2:])[current.packed_from_padded]
    return out[:, :, None]
