"""One sequence's cursor over an index: which tokens may come next, and whether the text may end.

Owns the `Guide` protocol and its implementation per backend. Indexes come from `compiler`;
putting the bitmask on logits is `mask`.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from litellm_mlx.errors import ConstraintError, EngineError
from litellm_mlx.grammar import nesting_limit, number_limit

if TYPE_CHECKING:
    import numpy as np
    from llguidance import LLMatcher

    from litellm_mlx.grammar.vocabulary import Vocabulary

    Bitmask = np.ndarray[Any, np.dtype[np.int32]]


# How llguidance 1.9.1 says that a regex grew over its limit, and what it prints after a reason.
_LEXER_LIMIT = "lexer error"
_STATE = "<state>"


class JsonPlace(NamedTuple):
    """Where in a JSON text a guide is: how many containers are open, and whether in a string."""

    depth: int
    is_in_string: bool


class Guide(Protocol):
    """Cursor of one sequence. One thread at a time may use it."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Whose tokens it allows."""
        ...

    @property
    def json_place(self) -> JsonPlace | None:
        """Where in a JSON text it is; None where the text is not JSON as a whole."""
        ...

    @property
    def state(self) -> Hashable | None:
        """What tells this place of the grammar from others; None where the engine keeps it."""
        ...

    @property
    def is_accepting(self) -> bool:
        """The text may end here."""
        ...

    @property
    def is_finished(self) -> bool:
        """The text can only end here; no stop token need be sampled."""
        ...

    def fill_bitmask(self, row: Bitmask) -> None:
        """Write which tokens may come next.

        Args:
            row: (num_bitmask_words,), int32, contiguous; bit t % 32 of word t // 32 is token t,
                1 = allowed. Every word is written. Stop tokens are allowed exactly where the
                text may end; control and padding tokens never, unless a grammar names them.

        Raises:
            ConstraintError: the grammar engine met a limit of its own inside this grammar.
        """
        ...

    def advance(self, token_id: int) -> None:
        """Take the token that was sampled.

        Raises:
            EngineError: the grammar did not allow it.
        """
        ...

    def forced(self) -> list[int]:
        """Tokens that any way to an end begins with, as far as that is easily known."""
        ...

    def fast_forward(self) -> list[int]:
        """Tokens that must come next, in the tokenizer's own way of writing that text."""
        ...

    def allows(self, token_ids: Sequence[int]) -> bool:
        """Whether the grammar lets these tokens come next, one after another.

        A bitmask may be narrower: it keeps to limits of length, and to the tokenizer's own tokens.
        """
        ...

    def ends_with(self, token_ids: Sequence[int]) -> bool:
        """Whether the text may go on with these tokens and end there, within all limits."""
        ...

    def copy(self) -> Guide:
        """Give another cursor at the same place; about 2 us with llguidance."""
        ...


class LLGuide:
    """Guide over an llguidance matcher, which it owns."""

    def __init__(
        self,
        matcher: LLMatcher,
        vocabulary: Vocabulary,
        *,
        may_steer: bool = False,
        first_mask: bytes | None = None,
    ) -> None:
        """Start at the beginning of the text.

        Args:
            matcher: there.
            vocabulary: of the model.
            may_steer: added markup tokens are let through.
            first_mask: what the engine said when it was compiled, if that is known.
        """
        self._matcher = matcher
        self._first_mask = first_mask
        self._vocabulary = vocabulary
        self._never = None if may_steer else _steering_bitmask(vocabulary)
        self._scratch = _scratch_row(vocabulary)
        self._has_stopped = False

    @property
    def vocabulary(self) -> Vocabulary:
        """Whose tokens it allows."""
        return self._vocabulary

    @property
    def json_place(self) -> None:
        """Not known here; see `LimitedGuide`."""
        return None

    @property
    def state(self) -> None:
        """The engine keeps it."""
        return None

    @property
    def is_accepting(self) -> bool:
        """The text may end here."""
        return self._has_stopped or self._matcher.is_accepting()

    @property
    def is_finished(self) -> bool:
        """The text can only end here."""
        if self._has_stopped:
            return True
        return self._matcher.is_stopped() and self._matcher.is_accepting()

    def fill_bitmask(self, row: Bitmask) -> None:
        """Write which tokens may come next; see `Guide`."""
        target = row if self._scratch is None else self._scratch
        if self._first_mask is not None:
            # the engine's own has one word more where the vocabulary fills the last
            target.data.cast("B")[:] = self._first_mask[: target.nbytes]
        else:
            self._matcher.unsafe_compute_mask_ptr(target.ctypes.data, target.nbytes)
        if self._matcher.is_error():
            raise _gave_up(self._matcher.get_error())
        if self._scratch is not None:
            row[:] = self._scratch[: row.size] & _real_tokens_bitmask(self._vocabulary)
        if self._never is not None:
            narrowed = row & ~self._never
            if narrowed.any():
                row[:] = narrowed

    def advance(self, token_id: int) -> None:
        """Take the token that was sampled; see `Guide`."""
        self._first_mask = None
        if self._has_stopped or not self._matcher.consume_token(token_id):
            reason = self._matcher.get_error()
            if _LEXER_LIMIT in reason:
                raise _gave_up(reason)
            raise not_allowed(token_id, reason)
        self._has_stopped = token_id in self._vocabulary.stop_token_ids

    def forced(self) -> list[int]:
        """Tokens that must come next; see `Guide`."""
        return [] if self._has_stopped else self._matcher.compute_ff_tokens()

    fast_forward = forced

    def allows(self, token_ids: Sequence[int]) -> bool:
        """Whether the grammar lets these tokens come next; see `Guide`."""
        tokens = list(token_ids)
        return not self._has_stopped and self._matcher.validate_tokens(tokens) == len(tokens)

    def ends_with(self, token_ids: Sequence[int]) -> bool:
        """Whether the text may end after these tokens; see `Guide`. About 4 us for 20 tokens."""
        if self.is_finished:  # the engine takes no stop token there
            return not token_ids
        tokens = [*token_ids, self._vocabulary.stop_token_ids[0]]  # valid where the text may end
        return self._matcher.validate_tokens(tokens) == len(tokens)

    def copy(self) -> LLGuide:
        """Give another cursor at the same place; see `Guide`."""
        other = copy.copy(self)
        other._matcher = self._matcher.deep_copy()
        return other


class CoreGuide:
    """Guide over an outlines_core guide, which it owns.

    That library knows one stop token; the others are added here. It calls a state that may end
    finished, so what it calls finished is our accepting.
    """

    def __init__(self, index: Any, vocabulary: Vocabulary) -> None:  # outlines_core is untyped
        """Start at the beginning of the text."""
        import outlines_core

        self._index = index
        self._guide = outlines_core.Guide(index)
        self._vocabulary = vocabulary
        self._stops = vocabulary.derived("stop_bitmask", stop_bitmask)
        self._has_stopped = False
        # One way to each state on the way here: the tokens to this one, without loops.
        self._path: list[int] = []
        self._lengths = {self._guide.get_state(): 0}

    @property
    def vocabulary(self) -> Vocabulary:
        """Whose tokens it allows."""
        return self._vocabulary

    @property
    def json_place(self) -> None:
        """Not known here; see `LimitedGuide`."""
        return None

    @property
    def state(self) -> int:
        """The automaton's state."""
        return int(self._guide.get_state())

    @property
    def is_accepting(self) -> bool:
        """The text may end here."""
        return self._has_stopped or bool(self._guide.is_finished())

    @property
    def is_finished(self) -> bool:
        """The text can only end here."""
        if not self.is_accepting:
            return False
        return self._has_stopped or not (self._mask() & ~self._stops).any()

    def fill_bitmask(self, row: Bitmask) -> None:
        """Write which tokens may come next; see `Guide`."""
        if self._has_stopped:
            row[:] = self._stops
            return
        row[:] = self._mask() & ~self._stops
        if self.is_accepting:
            row |= self._stops

    def advance(self, token_id: int) -> None:
        """Take the token that was sampled; see `Guide`."""
        is_stop = token_id in self._vocabulary.stop_token_ids
        if self._has_stopped or (is_stop and not self.is_accepting):
            raise not_allowed(token_id, "the text must go on")
        if is_stop:
            self._has_stopped = True
            return
        try:
            self._guide.advance(token_id, return_tokens=False)
        except ValueError as error:
            raise not_allowed(token_id, str(error)) from error
        self._extend_path(token_id)

    def forced(self) -> list[int]:
        """Nothing: this library does not say; see `Guide`."""
        return []

    fast_forward = forced

    def allows(self, token_ids: Sequence[int]) -> bool:
        """Whether the grammar lets these tokens come next; see `Guide`."""
        return not self._has_stopped and bool(self._guide.accepts_tokens(list(token_ids)))

    def ends_with(self, token_ids: Sequence[int]) -> bool:
        """Whether the text may end after these tokens; see `Guide`."""
        if self._has_stopped or not self.allows(token_ids):
            return self._has_stopped and not token_ids
        other = self.copy()
        for token_id in token_ids:
            other.advance(token_id)
        return other.is_accepting

    def copy(self) -> CoreGuide:
        """Give another cursor at the same place; see `Guide`.

        The library cannot copy one, so a new one goes there by the path that has no loops.
        """
        other = CoreGuide(self._index, self._vocabulary)
        for token_id in self._path:
            other.advance(token_id)
        other._has_stopped = self._has_stopped
        return other

    def _extend_path(self, token_id: int) -> None:
        """Note how this state was reached; a loop back to an earlier one is cut off."""
        self._path.append(token_id)
        length = self._lengths.setdefault(self._guide.get_state(), len(self._path))
        if length < len(self._path):
            del self._path[length:]
            self._lengths = {s: n for s, n in self._lengths.items() if n <= length}

    def _mask(self) -> Bitmask:
        import numpy as np

        words = np.zeros(self._vocabulary.num_bitmask_words, dtype=np.int32)
        self._guide.write_mask_into(words.ctypes.data, words.size, words.itemsize)
        return words


class LimitedGuide:
    """Another guide of a JSON text, with numbers and nesting kept to what parsers take."""

    def __init__(self, guide: Guide, vocabulary: Vocabulary) -> None:
        """Start at the beginning of the text, as `guide` does."""
        self._guide = guide
        self._vocabulary = vocabulary
        self._numbers = number_limit.number_limit(vocabulary)
        self._nesting = nesting_limit.nesting_limit(vocabulary)
        self._state = number_limit.START
        self._depth = 0

    @property
    def vocabulary(self) -> Vocabulary:
        """Whose tokens it allows."""
        return self._vocabulary

    @property
    def json_place(self) -> JsonPlace | None:
        """Where in the JSON text it is."""
        return JsonPlace(self._depth, self._state.part in ("string", "escape"))

    @property
    def state(self) -> Hashable | None:
        """That of the guide inside."""
        return self._guide.state

    @property
    def is_accepting(self) -> bool:
        """The text may end here."""
        return self._guide.is_accepting

    @property
    def is_finished(self) -> bool:
        """The text can only end here."""
        return self._guide.is_finished

    def fill_bitmask(self, row: Bitmask) -> None:
        """Write which tokens may come next; see `Guide`."""
        self._guide.fill_bitmask(row)
        self._numbers.narrow(self._state, row)
        self._nesting.narrow(self._depth, self._state, row)

    def advance(self, token_id: int) -> None:
        """Take the token that was sampled; see `Guide`."""
        self._guide.advance(token_id)
        token = self._vocabulary.token_bytes(token_id)
        if self._state.part == "string" and b'"' not in token and b"\\" not in token:
            return  # inside a string, which is where most tokens are
        self._depth = nesting_limit.depth_after(self._depth, self._state, token)
        self._state = number_limit.advance(self._state, token)

    def forced(self) -> list[int]:
        """Tokens that must come next; see `Guide`."""
        return self._guide.forced()

    def fast_forward(self) -> list[int]:
        """Tokens that must come next; see `Guide`."""
        return self._guide.fast_forward()

    def allows(self, token_ids: Sequence[int]) -> bool:
        """Whether the grammar lets these tokens come next; see `Guide`."""
        return self._guide.allows(token_ids)

    def ends_with(self, token_ids: Sequence[int]) -> bool:
        """Whether the text may end after these tokens; see `Guide`."""
        return self._guide.ends_with(token_ids) and self._keeps_limits(token_ids)

    def copy(self) -> LimitedGuide:
        """Give another cursor at the same place; see `Guide`."""
        other = copy.copy(self)
        other._guide = self._guide.copy()
        return other

    def _keeps_limits(self, token_ids: Sequence[int]) -> bool:
        text = b"".join(map(self._vocabulary.token_bytes, token_ids))
        if nesting_limit.goes_too_deep(self._depth, self._state, text):
            return False
        return self._state == number_limit.START or not number_limit.goes_too_far(self._state, text)


def _gave_up(reason: str) -> ConstraintError:
    return ConstraintError(
        "the constraint is too complex for the grammar engine, which gave up while it was "
        f"followed: {reason.partition(_STATE)[0].strip()}"
    )


def not_allowed(token_id: int, reason: str) -> EngineError:
    """The error of a token that the bitmask had not."""
    return EngineError(f"token {token_id} does not continue the constrained text: {reason}")


def stop_bitmask(vocabulary: Vocabulary) -> Bitmask:
    """Bitmask of the stop tokens."""
    return vocabulary.bitmask(vocabulary.stop_token_ids)


def _steering_bitmask(vocabulary: Vocabulary) -> Bitmask | None:
    """Bitmask of markup that the engine takes for text; None where there is none."""
    if not vocabulary.steering_token_ids:
        return None
    return vocabulary.derived("steering", lambda v: v.bitmask(v.steering_token_ids))


def _real_tokens_bitmask(vocabulary: Vocabulary) -> Bitmask:
    return vocabulary.derived("real_tokens", lambda v: v.bitmask(range(v.vocab_size)))


def _scratch_row(vocabulary: Vocabulary) -> Bitmask | None:
    """Row for the engine to write where the tokenizer has more tokens than the logits."""
    import numpy as np

    num_words = (vocabulary.ll_tokenizer.vocab_size + 31) // 32
    if vocabulary.ll_tokenizer.vocab_size <= vocabulary.vocab_size:
        return None
    return np.zeros(num_words, dtype=np.int32)
