"""What we may do to mlx-lm's layer caches of a batch; their insides stay opaque.

The batch caches of mlx-lm share one set of verbs over every kind (plain, rotating, recurrent), so
a batch is a list of them, one per layer, each with B rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from litellm_mlx.errors import ModelLoadError


class LayerCache(Protocol):
    """One layer's cache for B rows, as mlx-lm's batch caches have it."""

    nbytes: int
    state: Any

    def extend(self, other: LayerCache) -> None: ...  # noqa: D102
    def filter(self, keep: list[int]) -> None: ...  # noqa: D102
    def prepare(self, *, lengths: list[int], right_padding: list[int]) -> None: ...  # noqa: D102
    def finalize(self) -> None: ...  # noqa: D102


def new_caches(model: Any, num_rows: int) -> list[LayerCache]:
    """Empty caches for `num_rows` sequences of `model`, one per layer.

    Raises:
        ModelLoadError: the model has a kind of cache that mlx-lm cannot batch.
    """
    from mlx_lm.models.cache import make_prompt_cache

    rows = [make_prompt_cache(model) for _ in range(num_rows)]
    for layer in rows[0]:
        if not hasattr(layer, "merge"):
            raise ModelLoadError(
                f"mlx-lm cannot batch a {type(layer).__name__}; this model cannot be served"
            )
    return [layers[0].merge(list(layers)) for layers in zip(*rows, strict=True)]


def extend_caches(caches: list[LayerCache], other: list[LayerCache]) -> list[LayerCache]:
    """Append the rows of `other` to `caches`, in place where there is something to append to."""
    if not caches:
        return other
    for mine, theirs in zip(caches, other, strict=True):
        mine.extend(theirs)
    return caches


def select_rows(caches: list[LayerCache], rows: Sequence[int]) -> list[LayerCache]:
    """Keep `rows` in that order, in place; a row named twice is copied. No rows: no caches."""
    if not rows:
        return []
    for cache in caches:
        cache.filter(list(rows))
    return caches


def num_bytes(caches: Sequence[LayerCache]) -> int:
    """Bytes held by the caches."""
    return sum(cache.nbytes for cache in caches)
