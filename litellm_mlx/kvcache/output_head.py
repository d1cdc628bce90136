"""Keeps a model's output head from tokens whose logits nobody reads.

A pass that brings several tokens of a row needs the logits of the last one only, and the head is a
fifth of a small model's work. mlx-lm's models apply it to all that their inner model returns, so
the inner model is made to return what is wanted.
"""

from __future__ import annotations

from functools import reduce
from itertools import accumulate
from typing import Any

import mlx.core as mx

from litellm_mlx.kvcache.layers import BatchCache, are_close
from litellm_mlx.kvcache.separate import Rows

# Where mlx-lm's models keep what the head is applied to.
_INNER_MODELS = ("model", "language_model.model", "transformer", "backbone")
_PROBE = (3, 5, 7)
_MAX_DIFFERENCE = 0.05  # of the standard deviation of the logits: rounding


class OutputHead:
    """The output head of one model, which may be asked for some tokens only.

    Costs two short forward passes. `is_selective` is false where the model is of another make;
    then it gives the logits of all tokens.
    """

    def __init__(self, model: Any) -> None:
        self._places: mx.array | None = None
        self.is_selective = False
        for path in _INNER_MODELS:
            inner = reduce(lambda part, name: getattr(part, name, None), path.split("."), model)
            if not self.is_selective and callable(inner):
                kind = type(inner)
                self._watch(inner)
                self.is_selective = True  # until it is tried
                self.is_selective = self._is_exact(model)
                if not self.is_selective:
                    inner.__class__ = kind

    def logits(
        self,
        model: Any,
        cache: Rows,
        tokens: mx.array,
        counts: list[int],
        num_wanted: list[int],
    ) -> mx.array:
        """Run a pass, see `BatchCache.run`; logits (P, V) of each row's last tokens.

        Args:
            model: that the head belongs to.
            cache: of B rows.
            tokens: packed, (T, 1); or (1, W) of a single row.
            counts: B numbers of tokens.
            num_wanted: of how many of them the logits are wanted, P in sum.
        """
        if tokens.size == len(counts):
            return cache.run(model, tokens, counts)[:, -1]
        ends = zip(accumulate(counts), num_wanted, strict=True)
        places = mx.array([place for end, num in ends for place in range(end - num, end)])
        if not self.is_selective:
            return cache.run(model, tokens, counts).reshape(tokens.size, -1)[places]
        self._places = places
        try:
            return cache.run(model, tokens, counts)[:, 0]
        finally:
            self._places = None

    def _watch(self, inner: Any) -> None:
        kind = type(inner)

        def call(module: Any, *args: Any, **kwargs: Any) -> Any:
            hidden = kind.__call__(module, *args, **kwargs)
            if self._places is None:
                return hidden
            return hidden.reshape(-1, 1, hidden.shape[-1])[self._places]

        inner.__class__ = type(
            kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__}
        )

    def _is_exact(self, model: Any) -> bool:
        tokens, counts = mx.array([_PROBE]), [len(_PROBE)]
        try:
            expected = BatchCache.single(model).run(model, tokens, counts)[:, -1]
            got = self.logits(model, BatchCache.single(model), tokens, counts, [1])
            return are_close(got, expected, _MAX_DIFFERENCE)
        except Exception:  # whatever a model's code does with a shape that it does not expect
            return False
