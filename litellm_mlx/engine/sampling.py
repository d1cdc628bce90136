"""Logits of a batch to one token per row, each row by its own parameters.

A row's draw depends on its seed, its index and its position only, never on its neighbours: noise
is keyed, and the largest sum of logit and Gumbel noise wins, which a rounding difference between
batch sizes can flip only when two candidates tie to within it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
import numpy as np
from mlx_lm.sample_utils import (
    apply_min_p,
    apply_top_k,
    apply_top_p,
    make_logits_processors,
)

from litellm_mlx.types import SamplingParams, TokenLogprob

# OpenAI's API writes a token of probability 0 as this, because JSON has no -inf.
MIN_LOGPROB = -9999.0

Processor = Callable[[tuple[int, ...], list[int], mx.array], mx.array]


@dataclass(frozen=True, slots=True)
class RowSampler:
    """How one row draws its tokens; made once per sequence.

    `seed` is the caller's, or fresh entropy; rows of one request differ by `index`.
    """

    params: SamplingParams
    prompt_token_ids: tuple[int, ...]
    index: int
    seed: int
    processors: tuple[Processor, ...] = ()

    @classmethod
    def for_sequence(
        cls, params: SamplingParams, prompt_token_ids: tuple[int, ...], index: int
    ) -> RowSampler:
        """The sampler of completion `index` of a request."""
        seed = params.seed if params.seed is not None else secrets.randbits(63)
        return cls(params, prompt_token_ids, index, seed, _make_processors(params))

    @property
    def is_greedy(self) -> bool:
        """The likeliest token always wins."""
        return self.params.temperature == 0

    def process(self, logits: mx.array, completion: list[int]) -> mx.array:
        """Apply bias and penalties to (1, V) logits."""
        for processor in self.processors:
            logits = processor(self.prompt_token_ids, completion, logits)
        return logits

    def key(self, position: int) -> mx.array:
        """The random key, (2,) uint32, of the token at `position` of the completion."""
        text = f"{self.seed}:{self.index}:{position}".encode()
        return mx.random.key(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()))

    def warp(self, logits: mx.array) -> mx.array:
        """Apply temperature and the filters to (1, V) logits; what is cut becomes -inf."""
        params = self.params
        if self.is_greedy:
            return logits
        logits = logits * (1.0 / params.temperature)
        if 0 < params.top_k < logits.shape[-1]:
            logits = apply_top_k(logits, params.top_k)
        if params.top_p < 1 or params.min_p > 0:
            logits = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        if params.top_p < 1:
            logits = apply_top_p(logits, params.top_p)
        if params.min_p > 0:
            logits = apply_min_p(logits, params.min_p)
        return logits


def sample(logits: mx.array, rows: Sequence[RowSampler], positions: Sequence[int]) -> mx.array:
    """Draw one token per row.

    Args:
        logits: (B, V), any float dtype, already processed and masked.
        rows: B samplers.
        positions: B positions in the completion.

    Returns:
        (B,) token ids, being computed. They are dispatched on their own: a value that is only an
        intermediate of the next forward pass can be read no earlier than that pass ends.
    """
    tokens = mx.argmax(_scores(logits, rows, positions), axis=-1)
    mx.async_eval(tokens)
    return tokens


def _scores(logits: mx.array, rows: Sequence[RowSampler], positions: Sequence[int]) -> mx.array:
    """What the winning token has most of, (B, V)."""
    if all(row.is_greedy for row in rows):
        return logits
    return mx.concatenate(
        [
            _perturb(logits[i : i + 1].astype(mx.float32), row, position)
            for i, (row, position) in enumerate(zip(rows, positions, strict=True))
        ]
    )


def token_ids(tokens: mx.array) -> list[int]:
    """Wait for the (B,) tokens that `sample` drew and read them."""
    return cast(list[int], tokens.tolist())


def _perturb(logits: mx.array, row: RowSampler, position: int) -> mx.array:
    """Logits of one row plus its Gumbel noise, so that the largest is a fair draw."""
    if row.is_greedy:
        return logits
    return row.warp(logits) + mx.random.gumbel(logits.shape, key=row.key(position))


def process_rows(
    logits: mx.array, rows: Sequence[RowSampler], completions: Sequence[list[int]]
) -> mx.array:
    """Apply each row's bias and penalties to (B, V) logits; rows without any cost nothing."""
    if not any(row.processors for row in rows):
        return logits
    return mx.concatenate(
        [
            row.process(logits[i : i + 1], completion)
            for i, (row, completion) in enumerate(zip(rows, completions, strict=True))
        ]
    )


def token_logprobs(
    logits: mx.array,
    token_id: int,
    num_top: int,
    token_bytes: Callable[[int], bytes],
) -> TokenLogprob:
    """The log-probability of `token_id` and of the `num_top` likeliest tokens.

    Args:
        logits: (V,), masked; the distribution at temperature 1.
        token_id: the token that was drawn.
        num_top: how many alternatives to list; forbidden tokens are never listed.
        token_bytes: the bytes of a token.
    """
    scores = logits.astype(mx.float32)
    logprobs = np.array(scores - mx.logsumexp(scores))
    top: list[tuple[int, bytes, float]] = []
    if num_top:
        likeliest = np.argsort(-logprobs, kind="stable")[:num_top].tolist()
        allowed = [i for i in likeliest if np.isfinite(logprobs[i])]
        top = [(i, token_bytes(i), float(logprobs[i])) for i in allowed]
    chosen = max(float(logprobs[token_id]), MIN_LOGPROB)
    return TokenLogprob(token_id, token_bytes(token_id), chosen, tuple(top))


def _make_processors(params: SamplingParams) -> tuple[Processor, ...]:
    """mlx-lm's processors for bias and penalties, over the tokens that each is meant to see."""
    unbounded = 1 << 30  # mlx-lm looks at the last 20 tokens unless told otherwise
    everything = make_logits_processors(
        logit_bias=dict(params.logit_bias),
        repetition_penalty=None if params.repetition_penalty == 1 else params.repetition_penalty,
        repetition_context_size=unbounded,
    )
    completion = make_logits_processors(
        presence_penalty=params.presence_penalty,
        presence_context_size=unbounded,
        frequency_penalty=params.frequency_penalty,
        frequency_context_size=unbounded,
    )
    return (
        *(_over(processor, sees_prompt=True) for processor in everything),
        *(_over(processor, sees_prompt=False) for processor in completion),
    )


def _over(processor: Callable[[Any, mx.array], mx.array], *, sees_prompt: bool) -> Processor:
    """Give an mlx-lm processor its token array, with or without the prompt in front."""

    def process(prompt: tuple[int, ...], completion: list[int], logits: mx.array) -> mx.array:
        tokens = [*prompt, *completion] if sees_prompt else completion
        return processor(mx.array(tokens, dtype=mx.int32), logits)

    return process
