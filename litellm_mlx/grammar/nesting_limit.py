"""Keeps a JSON text from nesting for ever where its schema lets it end.

A recursive schema has no depth, and a small model that has begun to repeat itself only goes
deeper; Python's own parser gives up near 1,000. Past the limit a container opens only where the
grammar leaves nothing else. `guide` applies this to JSON schemas only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from litellm_mlx.grammar.number_limit import START, State, advance

if TYPE_CHECKING:
    import numpy as np

    from litellm_mlx.grammar.vocabulary import Vocabulary

    Bitmask = np.ndarray[Any, np.dtype[np.int32]]

# Containers inside each other. Two per level of a recursive model with a list of children: deeper
# than people nest, and shallow enough that a text which ran away still closes in a few hundred
# tokens.
MAX_DEPTH = 32

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_BRACKET = re.compile(rb"[{}\[\]]")
_CHANGE = {ord("{"): 1, ord("["): 1, ord("}"): -1, ord("]"): -1}


def depth_after(depth: int, state: State, data: bytes) -> int:
    """Number of open containers after more bytes; `state` is where the text was before them."""
    for byte in data:
        if state.part not in ("string", "escape"):
            depth += _CHANGE.get(byte, 0)
        state = advance(state, bytes([byte]))
    return depth


def goes_too_deep(depth: int, state: State, data: bytes) -> bool:
    """Whether more bytes open more containers inside each other than `MAX_DEPTH`."""
    if depth + data.count(b"{") + data.count(b"[") <= MAX_DEPTH:  # nearly always
        return False
    begun = {"string": b'"', "escape": b'"\\'}.get(state.part, b"")
    for bracket in _BRACKET.findall(_STRING.sub(b"", begun + data)):
        depth += _CHANGE[ord(bracket)]
        if depth > MAX_DEPTH:
            return True
    return False


class NestingLimit:
    """The tokens that deepen a text; made once per vocabulary, shared by threads."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Find them."""
        tokens = ((i, vocabulary.token_bytes(i)) for i in range(vocabulary.tokenizer_vocab_size))
        deepening = (
            i
            for i, token in tokens
            if (b"{" in token or b"[" in token) and depth_after(0, START, token) > 0
        )
        self._others = ~vocabulary.bitmask(deepening)

    def narrow(self, depth: int, state: State, row: Bitmask) -> None:
        """Clear the tokens of `row` that go deeper, unless the grammar then has no way on."""
        if depth < MAX_DEPTH or state.part in ("string", "escape"):
            return
        narrowed = row & self._others
        if narrowed.any():
            row[:] = narrowed


def nesting_limit(vocabulary: Vocabulary) -> NestingLimit:
    """Give the vocabulary's limit, made at the first call."""
    return vocabulary.derived("nesting_limit", NestingLimit)
