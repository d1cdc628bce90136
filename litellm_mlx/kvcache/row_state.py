"""What a model keeps of one row, cut out of a batch and put into a new one.

Layers of plain attention keep keys and values of each token: they can be cut between any two. The
others (rotating, recurrent, several kinds in one) are taken whole, as mlx-lm's cache of one row.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from litellm_mlx.kvcache.layers import BatchCache, Batching
from litellm_mlx.kvcache.prefix_tree import Match
from litellm_mlx.kvcache.row_cache import RowCache, RowLayout
from litellm_mlx.kvcache.separate import Rows, SeparateRows

_STEP = 256  # of a cache's capacity, as in `row_cache`

KeysAndValues = tuple[mx.array, mx.array]


@dataclass(frozen=True, slots=True)
class KVSegment:
    """Keys and values of a run of tokens in the plain layers, (1, heads, tokens, dim) each.

    A layer that holds nothing has `None`: Nemotron-NAS replaces the attention of some by a linear
    map and has caches for them all the same.
    """

    layers: tuple[KeysAndValues | None, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of the arrays; nothing else is held by them."""
        return sum(array.nbytes for pair in self.layers if pair for array in pair)

    def split(self, at: int) -> tuple[KVSegment, KVSegment]:
        """The first `at` tokens and the rest."""
        return self._between(None, at), self._between(at, None)

    def _between(self, start: int | None, end: int | None) -> KVSegment:
        place = (slice(None), slice(None), slice(start, end))
        pairs = self.layers
        return KVSegment(
            tuple(pair and (_copied(pair[0][place]), _copied(pair[1][place])) for pair in pairs)
        )

    def evaluate(self) -> None:
        """Start the copies; a pass in flight is not waited for."""
        mx.async_eval([pair for pair in self.layers if pair])


@dataclass(frozen=True, slots=True)
class RowSnapshot:
    """What the other layers keep of one row: mlx-lm's cache of each. Never run, only merged."""

    layers: tuple[Any, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of the arrays."""
        return sum(layer.nbytes for layer in self.layers)

    def evaluate(self) -> None:
        """See `KVSegment`."""
        mx.async_eval([layer.state for layer in self.layers])


RowMatch = Match[KVSegment, RowSnapshot]


def cut(cache: Rows, row: int, start: int, end: int) -> KVSegment:
    """Tokens [start, end) of a row, copied out of its plain layers; nothing is evaluated yet."""
    batch, row = cache.place(row)
    return KVSegment(tuple(layer.segment(row, start, end) for layer in _plain(batch.layers)))


def snapshot(cache: Rows, row: int) -> RowSnapshot:
    """A copy of what the other layers keep of a row now; nothing is evaluated yet."""
    batch, row = cache.place(row)
    others = _others(batch.layers)
    if batch.is_single:
        return RowSnapshot(tuple(copy.deepcopy(others)))
    return RowSnapshot(tuple(_extracted(layer, row) for layer in others))


def can_snapshot(cache: Rows) -> bool:
    """Every layer's kind can be taken out of a batch for one row."""
    batch, _ = cache.place(0)
    return batch.is_single or all(map(_can_extract, _others(batch.layers)))


def empty_rows(model: Any, num_rows: int, batching: Batching) -> Rows:
    """Empty caches for sequences of `model`."""
    if batching == "alone":
        return SeparateRows.new(model, num_rows)
    return BatchCache.new(model, num_rows)


def restore(
    model: Any, matches: Sequence[RowMatch], capacities: Sequence[int], batching: Batching
) -> Rows:
    """A batch whose rows begin with what was found of each; nothing is evaluated yet.

    Args:
        model: the caches are of.
        matches: one per row, some of them empty.
        capacities: tokens that each row will need room for.
        batching: of the model.
    """
    if batching == "alone":
        pairs = zip(matches, capacities, strict=True)
        return SeparateRows(
            [_restored(model, BatchCache.single(model), [m], [size]) for m, size in pairs]
        )
    return _restored(model, BatchCache.new(model, len(matches)), matches, capacities)


def _restored(
    model: Any, fresh: BatchCache, matches: Sequence[RowMatch], capacities: Sequence[int]
) -> BatchCache:
    if not any(match.length for match in matches):
        return fresh
    layout = RowLayout([match.length for match in matches])
    capacity = -(-max(capacities) // _STEP) * _STEP
    plain = _plain(fresh.layers)
    for number, layer in enumerate(plain):
        layer.layout = layout
        parts = [[(s.layers[number], count) for s, count in match.parts] for match in matches]
        held = [[(pair, count) for pair, count in row if pair is not None] for row in parts]
        if any(held):
            layer.load(_rows(held, 0, capacity), _rows(held, 1, capacity))
    layers: list[Any] = fresh.layers
    if len(plain) < len(layers):
        found = [match.checkpoint for match in matches]
        layers = _with_others(model, layers, found, is_single=fresh.is_single)
    return BatchCache(layers, layout, is_single=fresh.is_single)


def _plain(layers: Sequence[Any]) -> list[RowCache]:
    return [layer for layer in layers if isinstance(layer, RowCache)]


def _others(layers: Sequence[Any]) -> list[Any]:
    return [layer for layer in layers if not isinstance(layer, RowCache)]


def _rows(
    rows: Sequence[Sequence[tuple[KeysAndValues, int]]], which: int, capacity: int
) -> mx.array:
    """Each row's parts one after another and room up to the capacity, (B, heads, columns, dim)."""
    known = next(pair[which] for row in rows for pair, _ in row)
    _, num_heads, _, dim = known.shape
    built = []
    for row in rows:
        parts = [pair[which][:, :, :count] for pair, count in row]
        room = capacity - sum(part.shape[2] for part in parts)
        parts.append(mx.zeros((1, num_heads, room, dim), known.dtype))
        built.append(mx.concatenate(parts, axis=2))
    return built[0] if len(built) == 1 else mx.concatenate(built)


def _with_others(
    model: Any, layers: Sequence[Any], snapshots: Sequence[RowSnapshot | None], *, is_single: bool
) -> list[Any]:
    """The layers, with those that are not plain made from each row's snapshot or from nothing."""
    from mlx_lm.models.cache import make_prompt_cache

    others = [i for i, layer in enumerate(layers) if not isinstance(layer, RowCache)]
    rows = []
    for taken in snapshots:
        fresh = [make_prompt_cache(model)[i] for i in others] if taken is None else ()
        rows.append(fresh if taken is None else taken.layers)
    made = list(layers)
    for number, i in enumerate(others):
        own = rows[0][number]
        made[i] = copy.deepcopy(own) if is_single else own.merge([row[number] for row in rows])
    return made


def _can_extract(layer: Any) -> bool:
    return hasattr(layer, "extract") and all(map(_can_extract, getattr(layer, "caches", ())))


def _extracted(layer: Any, row: int) -> Any:
    from mlx.utils import tree_map

    alone = layer.extract(row)
    for own in getattr(alone, "caches", (alone,)):
        _drop_past_window(own)
    # Some kinds give views, which would keep the whole batch's arrays alive.
    alone.state = tree_map(lambda x: _copied(x) if isinstance(x, mx.array) else x, alone.state)
    return alone


def _drop_past_window(own: Any) -> None:
    """Forget keys that no later token attends to; a pass of several tokens leaves some behind."""
    most, keys = getattr(own, "max_size", None), getattr(own, "keys", None)
    if most is not None and keys is not None and keys.shape[2] > most:
        own.keys, own.values = own.keys[:, :, -most:], own.values[:, :, -most:]
        own._idx = most


def _copied(array: mx.array) -> mx.array:
    """The array with no more memory than its own."""
    return mx.contiguous(array)
