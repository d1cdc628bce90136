"""Keeps the numbers of a JSON text short enough that every parser takes them.

Owns the cursor over the text's bytes and the bitmasks of tokens that would go too far. Grammars
of JSON schemas bound no digits, so a model may write an integer of 5,000 digits, which Python
refuses to parse, or 1e999, which is infinite. `guide` applies this to JSON schemas only.
"""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    from litellm_mlx.grammar.vocabulary import Vocabulary

    Bitmask = np.ndarray[Any, np.dtype[np.int32]]

Part = Literal["other", "string", "escape", "integer", "fraction", "e", "exponent", "neg_exponent"]

# 20 digits hold every 64-bit integer, signed or not, and every fraction that Python's repr
# writes without an exponent. 1e99 times 20 digits is finite; 1e-999 is too small, but finite.
MAX_DIGITS: dict[Part, int] = {"integer": 20, "fraction": 20, "exponent": 2, "neg_exponent": 3}

_DIGITS = frozenset(b"0123456789")
_TO_SHAPE = bytes(ord("0") if byte in _DIGITS else byte for byte in range(256))
_IRRELEVANT = re.compile(rb'[^0.eE+\-"\\]+')
_QUOTE, _BACKSLASH, _DOT, _MINUS = b'"\\.-'


class State(NamedTuple):
    """Where the text is: in which part of it, and after how many digits of that part."""

    part: Part
    num_digits: int = 0


START = State("other")


def advance(state: State, data: bytes) -> State:
    """State after more bytes of a JSON text."""
    for byte in data:
        state = _step(state, byte)
    return state


def _step(state: State, byte: int) -> State:
    part, num_digits = state
    if part == "string":
        return START if byte == _QUOTE else State("escape" if byte == _BACKSLASH else "string")
    if part == "escape":
        return State("string")
    if byte in _DIGITS:
        after: Part = {"other": "integer", "e": "exponent"}.get(part, part)  # type: ignore[assignment]
        return State(after, num_digits + 1)
    if part == "integer" and byte == _DOT:
        return State("fraction")
    if part in ("integer", "fraction") and byte in b"eE":
        return State("e")
    if part == "e":
        return State("neg_exponent" if byte == _MINUS else "exponent")
    return State("string") if byte == _QUOTE else START


def goes_too_far(state: State, data: bytes) -> bool:
    """Whether these bytes would give a number a digit more than it may have."""
    for byte in data:
        before, state = state, _step(state, byte)
        if state.num_digits > max(before.num_digits, MAX_DIGITS.get(state.part, 0)):
            return True
    return False


class NumberLimit:
    """Tokens that each state forbids; made once per vocabulary, shared by threads.

    The rules count digits and do not look at them, so tokens of one shape, as "12" and "47",
    are judged once per state.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Sort the tokens that hold digits by their shape."""
        by_shape: defaultdict[bytes, list[int]] = defaultdict(list)
        zeros = []
        for token_id in range(vocabulary.tokenizer_vocab_size):
            token = vocabulary.token_bytes(token_id)
            if _DIGITS.isdisjoint(token):
                continue
            by_shape[_IRRELEVANT.sub(b"x", token.translate(_TO_SHAPE))].append(token_id)
            if token.startswith(b"0"):
                zeros.append(token_id)
        self._shapes = {s: vocabulary.bitmask(ids) for s, ids in by_shape.items()}
        self._zeros = vocabulary.bitmask(zeros)
        self._allowed: dict[State, Bitmask | None] = {}

    def narrow(self, state: State, row: Bitmask) -> None:
        """Clear the tokens of `row` that go too far, unless the grammar then has no way on.

        A number may have to go on past its limit: a long `const`, or a bound such as
        `exclusiveMinimum: 0` after 20 zeros. Then a digit other than 0 comes next if it can,
        because that is what brings the number out of every open bound.
        """
        if state not in self._allowed:
            self._allowed[state] = self._allowed_after(state)
        allowed = self._allowed[state]
        if allowed is None:
            return
        for narrowed in (row & allowed, row & ~self._zeros):
            if narrowed.any():
                row[:] = narrowed
                return

    def _allowed_after(self, state: State) -> Bitmask | None:
        """Bitmask of what may follow; None where nothing is forbidden."""
        forbidden = [bits for shape, bits in self._shapes.items() if goes_too_far(state, shape)]
        if not forbidden:
            return None
        allowed = ~forbidden[0]
        for bits in forbidden[1:]:
            allowed &= ~bits
        return allowed


def number_limit(vocabulary: Vocabulary) -> NumberLimit:
    """Give the vocabulary's limit, made at the first call."""
    return vocabulary.derived("number_limit", NumberLimit)
