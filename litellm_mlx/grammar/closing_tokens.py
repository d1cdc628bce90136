"""Which of the tokens that may come next a shortest ending tries, and in which order.

Owns the preferences only: what closes JSON first, then short values, separators and openers, then
what else a pattern or an enum may ask for. The search is `closing`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from litellm_mlx.grammar.guide import JsonPlace
    from litellm_mlx.grammar.vocabulary import Vocabulary

    Bitmask = np.ndarray[Any, np.dtype[np.int32]]

# A point with at most so many allowed tokens is a list of alternatives (keys, an enum), not text.
MAX_ALTERNATIVES = 256
# Branches of one point; more of them only cost time at points inside text.
MAX_BRANCHES = 24
NUM_FILLERS = 3  # long runs of letters: what meets a `minLength` in the fewest tokens

_VALUES = (b'""', b"[]", b"{}", b"0", b"1")
_SEPARATORS = (b'", "', b'",', b"],", b"},", b",")
_OPENERS = (b"[", b'["', b"[{", b"{", b'{"')
_CHARACTERS = b"aA@.-:/_ " + bytes(range(33, 127))
_CLOSER = re.compile(rb'"?[]}]+|"')


class ClosingTokens:
    """The order of one vocabulary's tokens; made once, shared by threads."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Look every token up once."""
        self._vocabulary = vocabulary
        self._ids = _ids_by_bytes(vocabulary)
        closers = sorted((t for t in self._ids if _CLOSER.fullmatch(t)), key=len, reverse=True)
        quotes = [token for token in closers if token.startswith(b'"')]
        brackets = [token for token in closers if not token.startswith(b'"')]
        rest = (*_VALUES, b'"', *_SEPARATORS, *_OPENERS)
        self._in_string = self._known([*quotes, *brackets, *rest])
        self._outside = self._known([*brackets, *rest])
        letters = (t for t in self._ids if t.isalpha() and t.islower() and t.isascii())
        fillers = sorted(letters, key=lambda token: (-len(token), token))[:NUM_FILLERS]
        self._text = self._known([*fillers, *(bytes([byte]) for byte in _CHARACTERS)])
        self._quotes = vocabulary.bitmask(self._ids[token] for token in quotes)

    def branches(
        self, row: Bitmask, place: JsonPlace | None, key_starts: frozenset[bytes]
    ) -> list[int]:
        """Some of the allowed tokens, those first that are likelier to lead to an end soon.

        Args:
            row: the allowed tokens.
            place: where the guide is.
            key_starts: beginnings of property names that must come.
        """
        is_outside = place is not None and not place.is_in_string
        chosen = [i for i in (self._outside if is_outside else self._in_string) if has(row, i)]
        if num_allowed(row) > MAX_ALTERNATIVES:
            chosen += [i for i in self._text if has(row, i)]
        else:
            chosen += self._alternatives(row, key_starts)
        stops = self._vocabulary.stop_token_ids
        return [i for i in dict.fromkeys(chosen) if i not in stops][:MAX_BRANCHES]

    def may_close_string(self, row: Bitmask) -> bool:
        """A closing quote is allowed."""
        return bool((row & self._quotes).any())

    def _alternatives(self, row: Bitmask, key_starts: frozenset[bytes]) -> list[int]:
        """All allowed tokens: of names that must come, the longest of each first byte, the rest."""
        bits = np.unpackbits(row.view(np.uint8), bitorder="little")
        tokens = {int(i): self._vocabulary.token_bytes(int(i)) for i in np.flatnonzero(bits)}
        longest_first = sorted(tokens, key=lambda i: -len(tokens[i]))
        of_each_byte = {tokens[i][:1]: i for i in reversed(longest_first)}
        chosen = frozenset(of_each_byte.values())
        return sorted(longest_first, key=lambda i: (tokens[i] not in key_starts, i not in chosen))

    def _known(self, texts: Iterable[bytes]) -> list[int]:
        """Ids of the texts that are tokens, alone or after a space."""
        spaced = (token for text in texts for token in (text, b" " + text))
        return [self._ids[token] for token in dict.fromkeys((*spaced, b" ")) if token in self._ids]


def closing_tokens(vocabulary: Vocabulary) -> ClosingTokens:
    """Give the vocabulary's order, made at the first call."""
    return vocabulary.derived("closing_tokens", ClosingTokens)


def num_allowed(row: Bitmask) -> int:
    """Number of tokens in a bitmask."""
    return int(np.bitwise_count(row.view(np.uint32)).sum())


def has(row: Bitmask, token_id: int) -> bool:
    """Whether a token is in a bitmask."""
    return bool(row[token_id >> 5] >> (token_id & 31) & 1)


def _ids_by_bytes(vocabulary: Vocabulary) -> dict[bytes, int]:
    """The lowest id of each text; neither stop nor control tokens."""
    unusable = {*vocabulary.control_token_ids, *vocabulary.stop_token_ids}
    tokens = ((vocabulary.token_bytes(i), i) for i in reversed(range(vocabulary.vocab_size)))
    return {token: i for token, i in tokens if token and i not in unusable}
