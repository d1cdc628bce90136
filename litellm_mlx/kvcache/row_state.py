"""What a model keeps of one row, cut out of a batch and put into a new one.

Layers of plain attention keep keys and values of each token: they can be cut between any two. The
others (rotating, recurrent, several kinds in one) are taken whole, as mlx-lm's cache of one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from litellm_mlx.kvcache.layers import BatchCache
from litellm_mlx.kvcache.prefix_tree import Match
from litellm_mlx.kvcache.row_cache import RowCache, RowLayout

_STEP = 256  # of a cache's capacity, as in `row_cache`

KeysAndValues = tuple[mx.array, mx.array]


@dataclass(frozen=True, slots=True)
class KVSegment:
    """Keys and values of a run of tokens in the plain layers, (1, heads, tokens, dim) each."""

    layers: tuple[KeysAndValues, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of the arrays; nothing else is held by them."""
        return sum(array.nbytes for pair in self.layers for array in pair)

    def split(self, at: int) -> tuple[KVSegment, KVSegment]:
        """The first `at` tokens and the rest."""
        first = tuple((_copied(k[:, :, :at]), _copied(v[:, :, :at])) for k, v in self.layers)
        rest = tuple((_copied(k[:, :, at:]), _copied(v[:, :, at:])) for k, v in self.layers)
        return KVSegment(first), KVSegment(rest)

    def evaluate(self) -> None:
        """Start the copies; a pass in flight is not waited for."""
        mx.async_eval(self.layers)


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


def cut(cache: BatchCache, row: int, start: int, end: int) -> KVSegment:
    """Tokens [start, end) of a row, copied out of its plain layers; nothing is evaluated yet."""
    return KVSegment(tuple(layer.segment(row, start, end) for layer in _plain(cache.layers)))


def snapshot(cache: BatchCache, row: int) -> RowSnapshot:
    """A copy of what the other layers keep of a row now; nothing is evaluated yet."""
    layers: Sequence[Any] = cache.layers
    others = (layer for layer in layers if not isinstance(layer, RowCache))
    return RowSnapshot(tuple(_extracted(layer, row) for layer in others))


def can_snapshot(cache: BatchCache) -> bool:
    """Every layer's kind can be taken out of a batch for one row."""
    return all(isinstance(layer, RowCache) or _can_extract(layer) for layer in cache.layers)


def restore(model: Any, matches: Sequence[RowMatch], capacities: Sequence[int]) -> BatchCache:
    """A batch whose rows begin with what was found of each; nothing is evaluated yet.

    Args:
        model: the caches are of.
        matches: one per row, some of them empty.
        capacities: tokens that each row will need room for.
    """
    fresh = BatchCache.new(model, len(matches))
    if not any(match.length for match in matches):
        return fresh
    layout = RowLayout([match.length for match in matches])
    capacity = -(-max(capacities) // _STEP) * _STEP
    plain = _plain(fresh.layers)
    for number, layer in enumerate(plain):
        layer.layout = layout
        pairs = [[(s.layers[number], count) for s, count in match.parts] for match in matches]
        layer.load(_rows(pairs, 0, capacity), _rows(pairs, 1, capacity))
    layers = fresh.layers
    if len(plain) < len(layers):
        layers = _with_others(model, layers, [match.checkpoint for match in matches])
    return BatchCache(layers, layout)


def _plain(layers: Sequence[Any]) -> list[RowCache]:
    return [layer for layer in layers if isinstance(layer, RowCache)]


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
    model: Any, layers: Sequence[Any], snapshots: Sequence[RowSnapshot | None]
) -> list[Any]:
    """The layers, with those that are not plain merged from each row's snapshot or from nothing."""
    from mlx_lm.models.cache import make_prompt_cache

    others = [i for i, layer in enumerate(layers) if not isinstance(layer, RowCache)]
    rows = []
    for taken in snapshots:
        fresh = [make_prompt_cache(model)[i] for i in others] if taken is None else ()
        rows.append(fresh if taken is None else taken.layers)
    merged = list(layers)
    for number, i in enumerate(others):
        merged[i] = rows[0][number].merge([row[number] for row in rows])
    return merged


def _can_extract(layer: Any) -> bool:
    return hasattr(layer, "extract") and all(map(_can_extract, getattr(layer, "caches", ())))


def _extracted(layer: Any, row: int) -> Any:
    from mlx.utils import tree_map

    alone = layer.extract(row)
    # Some kinds give views, which would keep the whole batch's arrays alive.
    alone.state = tree_map(lambda x: _copied(x) if isinstance(x, mx.array) else x, alone.state)
    return alone


def _copied(array: mx.array) -> mx.array:
    """The array with no more memory than its own."""
    return mx.contiguous(array)
