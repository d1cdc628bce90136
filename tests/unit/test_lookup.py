"""Guesses from earlier tokens: what is proposed, and when it stops paying."""

from __future__ import annotations

from litellm_mlx.engine.lookup import MAX_GUESS, PromptLookup


def guess(lookup: PromptLookup) -> list[int]:
    return lookup.guess(is_alone=False).token_ids


def test_what_followed_the_longest_repeated_ending_is_guessed() -> None:
    lookup = PromptLookup([1, 2, 3, 10, 11, 12, 9, 3, 20, 21])
    lookup.extend([1, 2, 3])
    assert guess(lookup)[:2] == [10, 11]  # not 20, which followed a lone 3 more lately
    lookup.extend([7, 3])
    assert guess(lookup)[:1] == [7]  # the latest of several


def test_nothing_is_guessed_after_what_is_new() -> None:
    assert guess(PromptLookup([])) == []
    assert guess(PromptLookup([1, 2, 3])) == []


def test_guesses_that_are_right_get_longer() -> None:
    lookup = PromptLookup([*range(40), *range(10)])
    tokens, before = lookup.guess(is_alone=False)
    assert tokens == [*range(10, 10 + MAX_GUESS)]
    for _ in range(30):
        lookup.learn(3, was_wrong=False)
    assert before < lookup.guess(is_alone=False).max_choices == MAX_GUESS


def test_a_row_alone_dares_more() -> None:
    lookup = PromptLookup([*range(40), *range(10)])
    assert lookup.guess(is_alone=True).max_choices > lookup.guess(is_alone=False).max_choices


def test_guesses_that_are_wrong_get_shorter_then_stop_and_are_tried_again_later() -> None:
    lookup = PromptLookup([*range(40), *range(10)])
    choices = []
    while guess(lookup):
        choices.append(lookup.guess(is_alone=False).max_choices)
        lookup.learn(0, was_wrong=True)
    assert choices == sorted(choices, reverse=True)
    assert choices[0] > 1
    waits = 0
    while not guess(lookup):
        waits += 1
    assert 0 < waits < 100
