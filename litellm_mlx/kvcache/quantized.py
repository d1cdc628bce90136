"""A `RowCache` whose keys and values are quantised: a quarter or an eighth of float32's memory.

mlx-lm's own quantised cache cannot be batched. Here each token's quantised numbers, scales and
biases lie one after another in one run of 32-bit words, so that to the batch and to the prefix
cache they are an array like any other, and a prompt gives the same text cold and warm. Attention is
mlx-lm's for quantised caches, which it chooses by `bits` and `group_size`.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from litellm_mlx.kvcache.row_cache import RowCache, RowLayout

_WORD_BITS = 32
_GROUP_SIZES = (64, 32)  # mlx-lm's default, and what smaller heads can be divided into


class QuantizedRowCache(RowCache):
    """One layer's keys and values, (B, heads, columns, words) each.

    Args:
        layout: of the batch.
        bits: of each number.
    """

    def __init__(self, layout: RowLayout, bits: int) -> None:
        super().__init__(layout)
        self.bits = bits
        self.group_size = _GROUP_SIZES[0]
        self._sizes = (0, 0)  # of a head's keys and values
        self._like = mx.zeros((0,))  # of their dtype, which alone cannot be copied

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Any:
        """Add the keys and values of the pass; give all, as (data, scales, biases) each.

        Raises:
            ValueError: heads of a size that cannot be divided into groups.
        """
        sizes = keys.shape[-1], values.shape[-1]
        groups = (n for n in _GROUP_SIZES if all(size % n == 0 for size in sizes))
        self.group_size = next(groups, 0)
        if not self.group_size:
            raise ValueError(f"heads of {sizes} numbers cannot be divided into groups of 32")
        self._sizes, self._like = sizes, self._like.astype(keys.dtype)
        return super().update_and_fetch(self._packed(keys), self._packed(values))

    def keys_and_values(self) -> Any:
        """All that is held for the pass under way, as `update_and_fetch` gives it."""
        return tuple(
            self._unpacked(array, size, self._like.dtype)
            for array, size in zip(super().keys_and_values(), self._sizes, strict=True)
        )

    def _packed(self, array: mx.array) -> mx.array:
        data, scales, biases = mx.quantize(array, group_size=self.group_size, bits=self.bits)
        scaling = mx.concatenate([scales, biases], axis=-1).view(mx.uint32)
        return mx.concatenate([data, scaling], axis=-1)

    def _unpacked(
        self, packed: mx.array, size: int, dtype: mx.Dtype
    ) -> tuple[mx.array, mx.array, mx.array]:
        num_words = size * self.bits // _WORD_BITS
        num_groups = size // self.group_size
        scaling = packed[..., num_words:].view(dtype)
        return packed[..., :num_words], scaling[..., :num_groups], scaling[..., num_groups:]
