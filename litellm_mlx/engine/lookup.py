"""Guesses of a completion's next tokens, from what stood after its last ones before.

An extraction copies its input, and a structured answer repeats keys, separators and names. A guess
costs no model: the next pass takes it along, and gives the logits after each of its tokens. What is
drawn from them is drawn as ever, so a right guess saves a pass, a wrong one costs a part of one,
and the text is the same. Pure Python; who draws and compares is `worker`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MAX_GUESS = 16
# Of so many last tokens; the longest that has occurred before is believed.
_LENGTHS = (3, 2, 1)
_FIRST_CHANCES = {3: 0.8, 2: 0.7, 1: 0.5}
# A token that is right less often does not pay. One more costs a row alone a tenth of its pass, and
# beside others a third of its part of theirs (SmolLM2, 1 and 16 rows, 2 cores, OpenBLAS). With 0.2
# instead of 0.4 a row alone took 0.64 to 0.85 of the time; of 16 it hardly mattered.
_MIN_CHANCE_ALONE = 0.2
_MIN_CHANCE = 0.4
_LEARNING_RATE = 0.15
_FORGETTING_RATE = 0.01  # for each guess not made: what did not pay is tried again after a while
# More of a long prompt is not looked at: noting one costs 1 us per token.
_MAX_PROMPT = 16_384


class Guess(NamedTuple):
    """Tokens that may come next, and how many that nothing forces are likely enough together."""

    token_ids: list[int]
    max_choices: int


class PromptLookup:
    """The tokens of one completion and its prompt, and how often guesses from them were right.

    Args:
        prompt_token_ids: what comes before the completion.
    """

    def __init__(self, prompt_token_ids: Sequence[int]) -> None:
        self._tokens: list[int] = []
        # Where the last tokens stood most lately with others after them: the place of the next.
        self._places: dict[tuple[int, ...], int] = {}
        self._chances = dict(_FIRST_CHANCES)
        self._length = _LENGTHS[0]  # of what the last guess was made from
        self.extend(prompt_token_ids[-_MAX_PROMPT:])

    def extend(self, token_ids: Sequence[int]) -> None:
        """Append tokens of the text."""
        tokens = self._tokens
        for token_id in token_ids:
            place = len(tokens)
            for length in _LENGTHS:
                if length <= place:
                    self._places[tuple(tokens[place - length :])] = place
            tokens.append(token_id)

    def guess(self, *, is_alone: bool) -> Guess:
        """What may come next, MAX_GUESS tokens or fewer; none that are not likely enough.

        Args:
            is_alone: nobody else waits for the pass that takes them.
        """
        for length in _LENGTHS:
            place = self._places.get(tuple(self._tokens[-length:]))
            if place is None or len(self._tokens) <= length:
                continue
            self._length = length
            min_chance = _MIN_CHANCE_ALONE if is_alone else _MIN_CHANCE
            max_choices = _num_likely(self._chances[length], min_chance)
            if max_choices:
                return Guess(self._tokens[place : place + MAX_GUESS], max_choices)
            self._chances[length] += _FORGETTING_RATE
            break
        return Guess([], 0)

    def learn(self, num_right: int, *, was_wrong: bool) -> None:
        """Hear how many choices of the last guess were right, and whether one was not."""
        chance = self._chances[self._length]
        for _ in range(num_right):
            chance += (1 - chance) * _LEARNING_RATE
        if was_wrong:
            chance -= chance * _LEARNING_RATE
        self._chances[self._length] = chance


def _num_likely(chance: float, min_chance: float) -> int:
    """How many tokens of this chance each have at least that one together."""
    count, whole = 0, chance
    while whole >= min_chance and count < MAX_GUESS:
        count += 1
        whole *= chance
    return count
