"""What a row of a model costs in bytes of KV cache, found without running the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from litellm_mlx.errors import ModelLoadError
from litellm_mlx.kvcache.layers import BatchCache

# Caches grow by so many tokens, ours as mlx-lm's.
_STEP = 256


@dataclass(frozen=True, slots=True)
class KVCost:
    """Bytes of one row's layer caches.

    Attributes:
        fixed_bytes: whatever the length: the state of recurrent layers.
        layers: of each other layer, the bytes per token, and how many tokens it holds at most.
    """

    fixed_bytes: int
    layers: tuple[tuple[int, int | None], ...]

    def row_bytes(self, num_tokens: int) -> int:
        """Bytes of a row that holds so many tokens; in a batch its longest row decides for all."""
        columns = -(-num_tokens // _STEP) * _STEP
        return self.fixed_bytes + sum(
            token_bytes * (columns if most is None else min(columns, most))
            for token_bytes, most in self.layers
        )


def measure_cost(model: Any) -> KVCost:
    """The cost of a row of `model`.

    MLX is lazy: the pass is described and its arrays have shapes, but nothing is computed.

    Raises:
        ModelLoadError: the model does not work with our caches, or not with quantised ones.
    """
    cache = BatchCache.single(model)
    try:
        cache.run(model, mx.array([[0]]), [1])
    except Exception as error:
        raise ModelLoadError(_refusal(model, error)) from error
    fixed_bytes, layers = 0, []
    for layer in _leaves(cache.layers):
        keys = getattr(layer, "keys", None)
        if isinstance(keys, mx.array) and keys.ndim == 4:
            layers.append((layer.nbytes // keys.shape[2], _most_tokens(layer)))
        else:
            fixed_bytes += layer.nbytes
    return KVCost(fixed_bytes, tuple(layers))


def _refusal(model: Any, error: Exception) -> str:
    """What people are told of a first pass that failed."""
    cause = f"{type(error).__name__}: {error}"
    bits = getattr(model, "kv_bits", None)
    if bits is None:
        return f"this model fails in its first forward pass ({cause})"
    return (
        f"kv_bits={bits} does not work with this model: the attention of its kind in mlx-lm takes "
        f"no quantised keys and values, or its heads cannot be divided ({cause}); leave kv_bits out"
    )


def _most_tokens(layer: Any) -> int | None:
    """How many tokens a layer holds at most; `None` where it holds all."""
    most: int | None = getattr(layer, "max_size", getattr(layer, "chunk_size", None))
    return most


def _leaves(layers: Any) -> Iterator[Any]:
    """Layer caches, those inside mlx-lm's `CacheList` too."""
    for layer in layers:
        inner = getattr(layer, "caches", None)
        if inner is None:
            yield layer
        else:
            yield from _leaves(inner)
