"""Token bytes become text: whatever the borders, the joined pieces are the whole text."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from litellm_mlx.engine.text import TextDecoder

MARKERS = ("<think>", "</think>")


def decode(
    chunks: list[bytes], *, is_complete: bool = True, **options: Any
) -> tuple[str, str, bool]:
    """Text, reasoning and whether a stop sequence ended it."""
    decoder = TextDecoder(**options)
    pieces = []
    for chunk in chunks:
        pieces.append(decoder.add(chunk))
        if pieces[-1].is_stopped:
            break
    else:
        pieces.append(decoder.finish(is_complete=is_complete))
    text = "".join(p.text for p in pieces)
    return text, "".join(p.reasoning for p in pieces), pieces[-1].is_stopped


def random_split(data: bytes, rng: random.Random) -> list[bytes]:
    cuts = sorted(rng.sample(range(len(data) + 1), k=min(4, len(data))))
    return [data[a:b] for a, b in itertools.pairwise([0, *cuts, len(data)])]


@pytest.mark.parametrize("seed", range(20))
def test_any_split_gives_the_same_text(seed: int) -> None:
    data = "naïve 😀 <think>hm 中</think>\n\nPlan END more".encode()
    chunks = random_split(data, random.Random(seed))
    assert decode(chunks, stop=["END"], thinking_markers=MARKERS) == (
        "naïve 😀 Plan ",
        "hm 中",
        True,
    )


def test_one_byte_at_a_time() -> None:
    data = "é<think>a</think>b</stop".encode()
    chunks = [bytes([byte]) for byte in data]
    assert decode(chunks, stop=["</stop>"], thinking_markers=MARKERS) == ("éb</stop", "a", False)


def test_half_a_character_at_the_end_is_dropped_when_cut_and_replaced_when_whole() -> None:
    assert decode(["é".encode()[:1]], is_complete=False) == ("", "", False)
    assert decode(["é".encode()[:1]], is_complete=True) == ("�", "", False)


def test_the_earliest_stop_sequence_wins() -> None:
    assert decode([b"one, two; three"], stop=["; ", ", "]) == ("one", "", True)


def test_a_prompt_that_opens_thinking_starts_in_it() -> None:
    chunks = [b"so", b"</think>", b"\n", b"\n42"]
    assert decode(chunks, thinking_markers=MARKERS, opens_reasoning=True) == ("42", "so", False)


def test_unfinished_thinking_is_reasoning() -> None:
    assert decode([b"<think>never ends"], thinking_markers=MARKERS) == ("", "never ends", False)


def test_a_stop_sequence_inside_thinking_stops() -> None:
    assert decode([b"<think>a STOP"], stop=["STOP"], thinking_markers=MARKERS) == ("", "a ", True)


def test_the_tokenizers_own_leading_space_is_trimmed_once() -> None:
    assert decode([b" Hi", b" you"], trims_leading_space=True) == ("Hi you", "", False)
    assert decode([b" Hi"]) == (" Hi", "", False)
