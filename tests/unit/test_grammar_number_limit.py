"""The cursor that counts digits: what it allows parses to something finite."""

from __future__ import annotations

import json
import math
import random

import pytest

from litellm_mlx.grammar.number_limit import START, advance, goes_too_far


@pytest.mark.parametrize(
    "text",
    [
        *("0.30000000000000004", "1e-07", "1.5e+16", "9223372036854775807", "5e-324", "-1E99"),
        *("18446744073709551615", "[1, 22, 333]", '"' + "9" * 99 + '"', '{"1e999": "1e999"}'),
        *('"\\"' + "1" * 50 + '"', "0.00012345678901234567"),
    ],
)
def test_ordinary_numbers_and_any_string_pass(text: str) -> None:
    assert not goes_too_far(START, text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "1" * 21,
        "0." + "1" * 21,
        "1e100",
        "1e+100",
        "1E999",
        "1e-1000",
        '{"a": ' + "9" * 21,
        '"\\\\"1e999',
    ],
)
def test_runaway_numbers_do_not(text: str) -> None:
    assert goes_too_far(START, text.encode())


def test_cutting_a_text_into_tokens_changes_nothing() -> None:
    seed = 2026
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(2_000):
        text = bytes(rng.choice(b'0019.eE+-"\\, ') for _ in range(rng.randrange(40)))
        cut = rng.randrange(len(text) + 1)
        middle = advance(START, text[:cut])
        assert advance(START, text) == advance(middle, text[cut:])
        whole = goes_too_far(START, text)
        assert whole == (goes_too_far(START, text[:cut]) or goes_too_far(middle, text[cut:]))


def test_what_passes_is_finite() -> None:
    seed = 7
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(5_000):
        text = str(rng.randrange(10 ** rng.randrange(1, 25)))
        if rng.random() < 0.5:
            text += "." + "9" * rng.randrange(1, 25)
        if rng.random() < 0.5:
            text += rng.choice(["e", "e+", "e-", "E"]) + "9" * rng.randrange(1, 5)
        if not goes_too_far(START, text.encode()):
            assert math.isfinite(json.loads(text))
