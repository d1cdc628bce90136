"""Prefill chunks are sized so that decoding rows wait no longer than they may."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from litellm_mlx.engine.pacing import MIN_CHUNK_TOKENS, Load, Pacer

STEP_TOKENS = 512
ONE_EACH = Load(num_decoding=1, num_pending=1)


def chunk_s(fixed_s: float, token_s: float) -> Callable[[int], float]:
    """How long a device takes for a chunk: it reads its weights, then works on the tokens."""
    return lambda num_tokens: fixed_s + token_s * num_tokens


# A 2-core CPU, where tokens cost; a GPU, where nearly all is the reading of weights; a device
# that is so slow at prefill that even the least chunk is too much.
DEVICES = {
    "cpu": (0.045, chunk_s(0.045, 0.0028)),
    "gpu": (0.010, chunk_s(0.009, 0.00002)),
    "slow": (0.045, chunk_s(0.045, 0.05)),
}


def run(
    pacer: Pacer,
    decode_s: float,
    cost: Callable[[int], float],
    prompt_tokens: int,
    *,
    noise: float = 0.0,
    num_rows: int = 1,
    load: Load = ONE_EACH,
) -> list[tuple[int, float]]:
    """Prefill prompts of equal length beside one decoding row: tokens and seconds of each chunk."""
    rng = random.Random(0)
    chunks: list[tuple[int, float]] = []
    left = prompt_tokens
    while left > 0:
        asked = pacer.chunk_tokens(num_rows, load)
        tokens = min(asked, left)
        seconds = cost(tokens * num_rows) * rng.uniform(1 - noise, 1 + noise)
        pacer.note_prefill(tokens * num_rows, asked * num_rows, seconds)
        pacer.note_decode(decode_s * rng.uniform(1 - noise, 1 + noise))
        chunks.append((tokens, seconds))
        left -= tokens
    return chunks


def test_alone_a_prompt_goes_in_full_steps() -> None:
    pacer = Pacer(STEP_TOKENS, 1.5)
    assert pacer.chunk_tokens(8, Load(0, 8)) == STEP_TOKENS


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_a_long_prompt_keeps_every_gap_under_three_decode_steps(device: str, noise: float) -> None:
    decode_s, cost = DEVICES[device]
    chunks = run(Pacer(STEP_TOKENS, 1.5), decode_s, cost, 8000, noise=noise)
    gaps = sorted(decode_s * (1 + noise) + seconds for _, seconds in chunks)
    assert gaps[int(0.99 * len(gaps))] <= 3 * decode_s * (1 + noise)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_pause_that_is_allowed_is_used(device: str) -> None:
    decode_s, cost = DEVICES[device]
    pacer = Pacer(STEP_TOKENS, 1.5)
    run(pacer, decode_s, cost, 8000)  # settles
    chunks = run(pacer, decode_s, cost, 4000)
    assert all(s >= min(1.3 * decode_s, cost(STEP_TOKENS)) for _, s in chunks[:-1])


def test_a_prompt_ends_on_a_device_of_any_speed() -> None:
    decode_s, cost = DEVICES["slow"]
    chunks = run(Pacer(STEP_TOKENS, 1.5), decode_s, cost, 400)
    assert all(tokens == MIN_CHUNK_TOKENS for tokens, _ in chunks)


def test_the_budget_is_for_all_rows_together() -> None:
    decode_s, cost = DEVICES["cpu"]
    chunks = run(Pacer(STEP_TOKENS, 1.5), decode_s, cost, 500, num_rows=4)
    assert all(seconds <= 1.6 * decode_s for _, seconds in chunks)
    assert all(tokens >= 1 for tokens, _ in chunks)


def test_where_many_wait_for_one_the_pause_is_longer() -> None:
    decode_s, cost = DEVICES["cpu"]
    few = run(Pacer(STEP_TOKENS, 1.5), decode_s, cost, 4000)
    many = run(Pacer(STEP_TOKENS, 1.5), decode_s, cost, 4000, load=Load(1, 8))
    assert sum(s for _, s in many) < 0.7 * sum(s for _, s in few)
    assert max(s for _, s in many) <= 8 * 1.6 * decode_s


def test_where_nobody_reads_along_chunks_are_as_cheap_as_full_steps() -> None:
    decode_s, cost = DEVICES["cpu"]
    chunks = run(Pacer(STEP_TOKENS, 1.5), decode_s, cost, 4000, load=Load(1, 1, is_streamed=False))
    full_step_s = cost(STEP_TOKENS) / STEP_TOKENS * 4000
    assert sum(s for _, s in chunks) <= 1.15 * full_step_s
    assert max(s for _, s in chunks) <= 13 * decode_s


def test_more_prompts_go_side_by_side_where_there_are_tokens_for_each() -> None:
    pacer = Pacer(STEP_TOKENS, 1.5)
    assert pacer.num_rows(8, Load(0, 16)) == 8
    assert pacer.num_rows(8, ONE_EACH) == 2
    decode_s, cost = DEVICES["gpu"]
    run(pacer, decode_s, cost, 8000)
    assert 2 < pacer.num_rows(8, ONE_EACH) <= 8
    assert pacer.num_rows(3, ONE_EACH) == 3


def test_a_hiccup_is_forgotten() -> None:
    decode_s, cost = DEVICES["cpu"]
    pacer = Pacer(STEP_TOKENS, 1.5)
    run(pacer, decode_s, cost, 2000)
    usual = pacer.chunk_tokens(1, ONE_EACH)
    pacer.note_decode(100 * decode_s)
    assert pacer.chunk_tokens(1, ONE_EACH) == usual
    pacer.note_prefill(usual, usual, 50 * cost(usual))
    run(pacer, decode_s, cost, 1000)
    assert abs(pacer.chunk_tokens(1, ONE_EACH) - usual) <= 3


def test_the_rest_of_a_prompt_does_not_count_as_a_chunk() -> None:
    decode_s, cost = DEVICES["cpu"]
    pacer = Pacer(STEP_TOKENS, 1.5)
    run(pacer, decode_s, cost, 2000)
    usual = pacer.chunk_tokens(1, ONE_EACH)
    pacer.note_prefill(1, usual, cost(1))
    assert pacer.chunk_tokens(1, ONE_EACH) == usual
