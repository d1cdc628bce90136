"""The caches of all layers for the rows of one batch.

A layer of plain attention has a `RowCache`; every other kind (rotating, recurrent, several in one)
has mlx-lm's own batch cache, which shares one set of verbs over the kinds and stays opaque here.
Rows that cannot share a pass are `separate`'s.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal, Protocol, cast

import mlx.core as mx

from litellm_mlx.errors import ModelLoadError
from litellm_mlx.kvcache.cpu_math import our_pass
from litellm_mlx.kvcache.quantized import QuantizedRowCache
from litellm_mlx.kvcache.row_cache import RowCache, RowLayout

# How rows of a model may run together: filled up to one width; only where all bring the same number
# of tokens; not at all. Which it is, `probe` finds out.
Batching = Literal["padded", "unpadded", "alone"]


class LayerCache(Protocol):
    """One layer's cache for B rows, as mlx-lm's batch caches have it."""

    nbytes: int
    state: Any

    def extend(self, other: Any) -> None: ...  # noqa: D102
    def filter(self, keep: list[int]) -> None: ...  # noqa: D102
    def prepare(self, *, lengths: list[int], right_padding: list[int]) -> None: ...  # noqa: D102
    def finalize(self) -> None: ...  # noqa: D102


class BatchCache:
    """What a model keeps of B sequences: one cache per layer, each with B rows.

    Args:
        layers: of the model's kinds, all with the same rows.
        layout: how long the rows are; that of the layers that are a `RowCache`.
        is_single: the other layers are mlx-lm's caches of a single sequence, which has no rows to
            add or drop; see `separate`.
    """

    def __init__(
        self, layers: list[LayerCache], layout: RowLayout, *, is_single: bool = False
    ) -> None:
        self.layers = layers
        self.is_single = is_single
        self._layout = layout

    @classmethod
    def new(cls, model: Any, num_rows: int) -> BatchCache:
        """Empty caches for `num_rows` sequences of `model`.

        Where the model has an attribute `kv_bits` that is not `None`, plain attention's are
        quantised.

        Raises:
            ModelLoadError: the model has a kind of cache that mlx-lm cannot batch.
        """
        from mlx_lm.models.cache import make_prompt_cache

        layout = RowLayout([0] * num_rows)
        rows = [make_prompt_cache(model) for _ in range(num_rows)]
        layers: list[LayerCache] = []
        for row_layers in zip(*rows, strict=True):
            plain = _plain_layer(model, row_layers[0], layout)
            if plain is None and not hasattr(row_layers[0], "merge"):
                kind = type(row_layers[0]).__name__
                raise ModelLoadError(f"mlx-lm cannot batch a {kind}")
            layers.append(plain or row_layers[0].merge(list(row_layers)))
        return cls(layers, layout)

    @classmethod
    def single(cls, model: Any) -> BatchCache:
        """Empty caches for one sequence that nothing is ever batched with, see `new`."""
        from mlx_lm.models.cache import make_prompt_cache

        layout = RowLayout([0])
        layers = [_plain_layer(model, own, layout) or own for own in make_prompt_cache(model)]
        return cls(layers, layout, is_single=True)

    @property
    def lengths(self) -> list[int]:
        """Tokens that each row holds."""
        return self._layout.lengths

    @property
    def is_plain(self) -> bool:
        """Every layer is plain attention: rows can be packed, cut back and split anywhere."""
        return all(isinstance(layer, RowCache) for layer in self.layers)

    @property
    def num_bytes(self) -> int:
        """Bytes of all arrays. Any thread may ask."""
        return sum(layer.nbytes for layer in self.layers)

    def run(self, model: Any, tokens: mx.array, counts: Sequence[int]) -> mx.array:
        """Run new tokens of each row through the model; nothing is evaluated yet.

        Args:
            model: the caches are of.
            tokens: (B, W), filled up at the end of each row; or packed, (T, 1), see `Pass`.
            counts: B numbers of tokens, T in sum.

        Returns:
            (B, W, V) or (T, 1, V) logits.
        """
        is_packed = len(tokens) != len(counts) or (tokens.shape[1] == 1 and max(counts) > 1)
        padding = [] if is_packed else [tokens.shape[1] - count for count in counts]
        self._layout.begin(counts, is_packed=is_packed)
        others = [layer for layer in self.layers if not isinstance(layer, RowCache)]
        if tokens.shape[1] > 1:
            for layer in others:
                _put_in_temporal_order(layer)
        if any(padding):
            for layer in others:
                layer.prepare(lengths=list(counts), right_padding=padding)
        with our_pass():
            logits = model(tokens, cache=self.layers)
        if any(padding):
            for layer in others:
                layer.finalize()
        self._layout.end()
        return cast(mx.array, logits)

    def place(self, row: int) -> tuple[BatchCache, int]:
        """The batch that holds a row, and which of its rows it is."""
        return self, row

    def evaluate(self) -> None:
        """Wait until the caches hold what was run."""
        mx.eval([layer.state for layer in self.layers])

    def extend(self, other: object) -> None:
        """Append the rows of another one, which is not to be used any more."""
        assert isinstance(other, BatchCache)
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.extend(theirs)
            if isinstance(mine, RowCache):
                mine.layout = self._layout
        self._layout.lengths += other.lengths

    def take_back(self, counts: Sequence[int]) -> None:
        """Forget the last tokens of each row, so many. Only where `is_plain`."""
        lengths = zip(self._layout.lengths, counts, strict=True)
        self._layout.lengths = [length - count for length, count in lengths]

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows in this order; one named twice is copied. At least one."""
        for layer in self.layers:
            layer.filter(list(rows))
        self._layout.lengths = [self._layout.lengths[row] for row in rows]

    def copy_of(self, rows: Sequence[int]) -> BatchCache:
        """Give `rows` as a batch of their own."""
        # Arrays are immutable values to MLX, so the copy shares them until one side changes.
        other = copy.deepcopy(self)
        other.keep(rows)
        return other


def _plain_layer(model: Any, own: Any, layout: RowLayout) -> LayerCache | None:
    """Our cache in place of a layer's own, where that is plain attention's."""
    from mlx_lm.models.cache import KVCache

    if type(own) is not KVCache:
        return None
    bits = getattr(model, "kv_bits", None)
    plain = RowCache(layout) if bits is None else QuantizedRowCache(layout, bits)
    return cast(LayerCache, plain)


def _put_in_temporal_order(layer: Any) -> None:
    """Unroll a ring of keys and values, so that a pass of several tokens is masked as it is laid.

    mlx-lm's `BatchRotatingKVCache.make_mask` reckons where each row begins from the ring's pointer,
    and the pass then unrolls the ring: a row that had left padding loses its oldest key. Goes once
    that mask is made of the unrolled ring (mlx-lm 0.32.2 has nothing reported: it never runs
    several tokens on a ring that has turned).
    """
    for inner in getattr(layer, "caches", (layer,)):
        if getattr(inner, "rotated", False):
            inner._temporal_order()


def are_close(logits: mx.array, expected: mx.array, max_difference: float) -> bool:
    """Whether logits of one shape differ by rounding only.

    Args:
        logits: of any shape; another than that of `expected` is not close.
        expected: what they should be.
        max_difference: between any two, in standard deviations of `expected`.
    """
    if logits.shape != expected.shape:
        return False
    difference = mx.abs(logits - expected).max().astype(mx.float32)
    return bool(difference <= max_difference * mx.std(expected.astype(mx.float32)))
