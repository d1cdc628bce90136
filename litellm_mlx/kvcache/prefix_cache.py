"""What a model has seen of earlier prompts and answers, for requests that begin like them.

Nothing is approximated: a row that starts here holds the model's own keys and values of the same
tokens at the same places, so that warm and cold runs differ by rounding only, as runs in different
batches do. Layers of plain attention can be reused up to any token. Where a model has others
(rotating, recurrent, several in one), their state belongs to one place and cannot be cut: it is
kept at the ends of messages, of whole prompts and answers and where two prompts part, and a prompt
is served from the last of those that it shares. A kind that mlx-lm cannot take out of a batch is
not reused at all. Plain attention that `kv_bits` quantises is reused like any other, as the bits
that it holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from litellm_mlx.kvcache.layers import Batching
from litellm_mlx.kvcache.prefix_tree import PrefixTree, Tokens, common_prefix
from litellm_mlx.kvcache.row_state import (
    KVSegment,
    RowMatch,
    RowSnapshot,
    can_snapshot,
    cut,
    empty_rows,
    restore,
    snapshot,
)
from litellm_mlx.kvcache.separate import Rows
from litellm_mlx.kvcache.session_file import Session

# Ends of messages in one prompt that are kept where state cannot be cut: system prompt, demos and
# the last turns of a history. Each one ends a prefill pass, and costs a snapshot.
MAX_BORDERS = 8
# Where a prompt leaves an earlier one it is kept, too, if that is so many tokens behind the last
# border: a template may mark no end, as Mistral's of a system prompt, and demos may lie in one
# message. A third prompt that begins like the two is served from there.
MIN_BRANCH_TOKENS = 32


class PrefixCache:
    """The stored prefixes of one model. For the engine's thread only, but for `num_bytes`.

    Args:
        model: whose layer caches these are.
        max_bytes: of all that is stored; 0 stores nothing.
        end_token_ids: end a message in the model's chat template.
        batching: how rows of the model may run together.
    """

    def __init__(
        self,
        model: Any,
        max_bytes: int,
        end_token_ids: Iterable[int],
        batching: Batching = "padded",
    ) -> None:
        empty = empty_rows(model, 1, batching)
        self.batching: Batching = batching
        self._model = model
        self._is_plain = empty.is_plain
        self._end_token_ids = frozenset(end_token_ids)
        self._tree: PrefixTree[KVSegment, RowSnapshot] = PrefixTree(
            max_bytes if can_snapshot(empty) else 0, needs_checkpoints=not self._is_plain
        )
        self._is_off = self._tree.max_bytes == 0

    @property
    def num_bytes(self) -> int:
        """Bytes of everything stored. Any thread may ask."""
        return self._tree.num_bytes

    @property
    def max_bytes(self) -> int:
        """The limit; 0 where nothing is stored."""
        return self._tree.max_bytes

    def resize(self, max_bytes: int) -> None:
        """Change the limit, unless nothing was to be stored, or could be, from the start."""
        if not self._is_off:
            self._tree.resize(max_bytes)

    def match_length(self, tokens: Tokens) -> int:
        """How many tokens of a prompt would not be prefilled; its last one always is."""
        return self._tree.match_length(tokens[:-1])

    def shared_length(self, tokens: Tokens, other: Tokens) -> int:
        """How many tokens of a prompt would not be prefilled once another prompt is through."""
        if self.max_bytes == 0:
            return 0
        shared = common_prefix(tokens[:-1], other[:-1])
        if self._is_plain or shared == len(other) - 1:
            return shared
        return max((border for border in self.borders(other) if border <= shared), default=0)

    def begin(self, prompts: Sequence[Tokens]) -> Rows:
        """A batch of these prompts that holds what is known of each; see its `lengths`."""
        matches: list[RowMatch] = [self._tree.find(prompt[:-1]) for prompt in prompts]
        lengths = [len(prompt) for prompt in prompts]
        return restore(self._model, matches, lengths, self.batching)

    def borders(self, prompt: Tokens) -> list[int]:
        """Where the prefill of a prompt must stop to be stored, ascending; its end is no border."""
        if self._is_plain or self.max_bytes == 0:
            return []
        ends = [i + 1 for i, token in enumerate(prompt[:-2]) if token in self._end_token_ids]
        ends = ends[-MAX_BORDERS:]
        branch = self._tree.known_length(prompt[:-2])
        if branch - max((end for end in ends if end <= branch), default=0) >= MIN_BRANCH_TOKENS:
            ends = sorted([*ends, branch])
        return ends

    def store(self, tokens: Tokens, cache: Rows, row: int, *, key: str | None = None) -> bool:
        """Store a row of a batch; copies only what is not stored yet, and waits for nothing.

        Args:
            tokens: that the row holds, or the first of them; a model with layers whose state
                cannot be cut has none stored then.
            cache: the batch.
            row: of the batch.
            key: of a session to pin, see `PrefixTree`.

        Returns:
            Whether it is stored now.
        """
        if not tokens or self.max_bytes == 0:
            return False
        if self._is_plain:
            return self._tree.insert(tokens, partial(cut, cache, row), key=key)
        if len(tokens) != cache.lengths[row]:
            return False
        return self._tree.insert(
            tokens, partial(cut, cache, row), partial(snapshot, cache, row), key=key
        )

    def session(self, key: str) -> tuple[Tokens, RowMatch] | None:
        """The tokens of a pinned session and what is stored of them."""
        tokens = self._tree.session(key)
        return None if tokens is None else (tokens, self._tree.find(tokens))

    def add_session(self, session: Session) -> bool:
        """Store and pin a session that comes from a file.

        Returns:
            Whether it is pinned: not where it needs more than half of the bytes.
        """
        segment, taken = session.segment, session.taken

        def cut_segment(start: int, end: int) -> KVSegment:
            return segment.split(start)[1] if start > 0 else segment

        take = None if taken is None else lambda: taken
        self._tree.insert(session.tokens, cut_segment, take, key=session.key)
        return self._tree.session(session.key) == session.tokens
