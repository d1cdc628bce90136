"""A guide for models that think first: a thinking block of bounded length, then another guide.

The block ends at the first token of the model's closing marker; the rest of the marker is then
forced, so that the constrained text always begins where the model has learnt to begin it.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from litellm_mlx.errors import EngineError
from litellm_mlx.types import Thinking

if TYPE_CHECKING:
    from litellm_mlx.grammar.guide import Bitmask, Guide, JsonPlace
    from litellm_mlx.grammar.vocabulary import Vocabulary


class ThinkingGuide:
    """Any text but markup until the thinking ends; then what `inner` allows, or anything.

    Args:
        inner: constrains what follows; `None` leaves it free.
        thinking: how the block ends.
        vocabulary: of the model.
    """

    def __init__(self, inner: Guide | None, thinking: Thinking, vocabulary: Vocabulary) -> None:
        self._inner = inner
        self._end = thinking.end_token_ids
        self._budget_tokens = thinking.budget_tokens
        self._vocabulary = vocabulary
        self._num_thought = 0
        self._num_ended = 0  # tokens of the end that have been taken
        self._took_end = False

    @property
    def vocabulary(self) -> Vocabulary:
        """Whose tokens it allows."""
        return self._vocabulary

    @property
    def json_place(self) -> JsonPlace | None:
        """Where in a JSON answer it is."""
        if self.is_thinking or self._inner is None:
            return None
        return self._inner.json_place

    @property
    def state(self) -> Hashable | None:
        """That of the guide of the answer."""
        return None if self._inner is None else self._inner.state

    @property
    def is_thinking(self) -> bool:
        """The next token still belongs to the block or to its end."""
        return self._num_ended < len(self._end)

    @property
    def took_end(self) -> bool:
        """The last token belonged to the end of the block: it is neither thought nor answer."""
        return self._took_end

    @property
    def is_accepting(self) -> bool:
        """The text may end here."""
        return not self.is_thinking and (self._inner is None or self._inner.is_accepting)

    @property
    def is_finished(self) -> bool:
        """The text can only end here."""
        return not self.is_thinking and self._inner is not None and self._inner.is_finished

    def fill_bitmask(self, row: Bitmask) -> None:
        """Write which tokens may come next; see `Guide`."""
        if self.is_thinking:
            self._fill_thinking(row)
        elif self._inner is not None:
            self._inner.fill_bitmask(row)
        else:
            row.fill(-1)

    def advance(self, token_id: int) -> None:
        """Take the token that was sampled; see `Guide`."""
        self._took_end = False
        if not self.is_thinking:
            if self._inner is not None:
                self._inner.advance(token_id)
        elif token_id == self._end[self._num_ended]:
            self._num_ended += 1
            self._took_end = True
        elif self._num_ended:
            raise EngineError(f"token {token_id} does not end the thinking block")
        else:
            self._num_thought += 1

    def forced(self) -> list[int]:
        """The rest of the block's end, or what the answer must begin with; see `Guide`."""
        if self.is_thinking:
            return list(self._end[self._num_ended :])
        return [] if self._inner is None else self._inner.forced()

    def fast_forward(self) -> list[int]:
        """The rest of the block's end once it has begun, or what the answer must begin with."""
        if self.is_thinking:
            return list(self._end[self._num_ended :]) if self._num_ended else []
        return [] if self._inner is None else self._inner.fast_forward()

    def allows(self, token_ids: Sequence[int]) -> bool:
        """Whether the block may end with these tokens, or the answer go on; see `Guide`."""
        left = self._end[self._num_ended :]
        if tuple(token_ids[: len(left)]) != left[: len(token_ids)]:
            return False
        rest = token_ids[len(left) :]
        return not rest or self._inner is None or self._inner.allows(rest)

    def ends_with(self, token_ids: Sequence[int]) -> bool:
        """Whether the text may end after these tokens; see `Guide`."""
        if self.is_thinking and not self._num_ended:
            thought = itertools.takewhile(lambda token: token != self._end[0], token_ids)
            token_ids = token_ids[len(tuple(thought)) :]
        num_left = len(self._end) - self._num_ended
        if len(token_ids) < num_left or not self.allows(token_ids[:num_left]):
            return False
        return self._inner is None or self._inner.ends_with(token_ids[num_left:])

    def copy(self) -> ThinkingGuide:
        """Give another cursor at the same place; see `Guide`."""
        other = copy.copy(self)
        other._inner = None if self._inner is None else self._inner.copy()
        return other

    def _fill_thinking(self, row: Bitmask) -> None:
        is_spent = self._budget_tokens is not None and self._num_thought >= self._budget_tokens
        if self._num_ended or is_spent:
            row[:] = self._vocabulary.bitmask([self._end[self._num_ended]])
            return
        row[:] = self._vocabulary.derived("thought", _thought_bitmask)
        row |= self._vocabulary.bitmask([self._end[0]])


def _thought_bitmask(vocabulary: Vocabulary) -> Bitmask:
    """Everything but stop tokens and markup: a thought that ended the text would have no answer."""
    markup = (*vocabulary.control_token_ids, *vocabulary.stop_token_ids)
    ids = set(range(vocabulary.tokenizer_vocab_size)) - set(markup)
    return vocabulary.bitmask(ids)
