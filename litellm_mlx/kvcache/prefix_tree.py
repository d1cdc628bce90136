"""A radix tree over token ids: what a model keeps of prompts that begin alike is stored once.

Owns matching, splitting, the byte limit, who goes first and who is pinned. What is stored stays
opaque: how it is cut from a batch and put back is `row_state`'s. Plain Python, for one thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

Tokens = tuple[int, ...]


class Segment(Protocol):
    """What a model keeps of a run of tokens, each for itself."""

    @property
    def num_bytes(self) -> int: ...  # noqa: D102
    def split(self, at: int) -> tuple[Any, Any]:
        """The first `at` tokens and the rest, sharing no memory with each other or with this."""

    def evaluate(self) -> None:
        """Make the values now; it is being stored."""


class Checkpoint(Protocol):
    """What a model keeps of all tokens up to one place together; it cannot be cut."""

    @property
    def num_bytes(self) -> int: ...  # noqa: D102
    def evaluate(self) -> None:
        """See `Segment`."""


SegmentT = TypeVar("SegmentT", bound=Segment)
CheckpointT = TypeVar("CheckpointT", bound=Checkpoint)


@dataclass(frozen=True, slots=True)
class Match(Generic[SegmentT, CheckpointT]):
    """The longest stored prefix of some tokens.

    `parts` are its segments, one after another, and how many tokens of each belong to it; the
    checkpoint is of its end.
    """

    length: int = 0
    parts: tuple[tuple[SegmentT, int], ...] = ()
    checkpoint: CheckpointT | None = None


@dataclass(slots=True, eq=False)
class _Node(Generic[SegmentT, CheckpointT]):
    tokens: Tokens
    segment: SegmentT | None
    parent: _Node[SegmentT, CheckpointT] | None
    checkpoint: CheckpointT | None = None
    children: dict[int, _Node[SegmentT, CheckpointT]] = field(default_factory=dict)
    num_pins: int = 0

    @property
    def num_bytes(self) -> int:
        parts = (self.segment, self.checkpoint)
        return sum(part.num_bytes for part in parts if part is not None)

    def to_root(self) -> Iterator[_Node[SegmentT, CheckpointT]]:
        """This node and those above it, but for the root."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent


class PrefixTree(Generic[SegmentT, CheckpointT]):
    """Stored prefixes, within `max_bytes`; the least recently used leaves go first.

    A pinned session goes by its key and holds on to its tokens. Pinned ones have at most half of
    the bytes: the session that was used longest ago is let go, one that needs more not pinned.

    Args:
        max_bytes: of everything that is stored.
        needs_checkpoints: a prefix is of use only where a checkpoint ends it.
    """

    def __init__(self, max_bytes: int, *, needs_checkpoints: bool = False) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._needs_checkpoints = needs_checkpoints
        self._root: _Node[SegmentT, CheckpointT] = _Node((), None, None)
        # Unpinned nodes, least recently used first. A node is moved before its parent is, so that
        # the first is always a leaf; a pinned node's parents are pinned, so that this stays true.
        self._order: OrderedDict[_Node[SegmentT, CheckpointT], None] = OrderedDict()
        self._sessions: OrderedDict[str, _Node[SegmentT, CheckpointT]] = OrderedDict()

    def match_length(self, tokens: Tokens) -> int:
        """How many of the first tokens `find` would find."""
        return self._useful(self._path(tokens))[0]

    def known_length(self, tokens: Tokens) -> int:
        """How many of the first tokens have been stored, whether they can be restored or not."""
        return sum(count for _, count in self._path(tokens))

    def find(self, tokens: Tokens) -> Match[SegmentT, CheckpointT]:
        """The longest stored prefix of `tokens`, which counts as used now."""
        path = self._path(tokens)
        length, num_nodes = self._useful(path)
        if num_nodes == 0:
            return Match()
        path = path[:num_nodes]
        last, num_last = path[-1]
        self._touch(last)
        checkpoint = last.checkpoint if num_last == len(last.tokens) else None
        return Match(length, tuple((_segment(node), count) for node, count in path), checkpoint)

    def insert(
        self,
        tokens: Tokens,
        cut: Callable[[int, int], SegmentT],
        take_checkpoint: Callable[[], CheckpointT] | None = None,
        *,
        key: str | None = None,
    ) -> bool:
        """Store what is known of `tokens`.

        Args:
            tokens: at least one.
            cut: gives the segment of tokens [start, end); called for what is missing, if anything.
            take_checkpoint: gives the checkpoint of their end; called where there is none yet.
            key: of a session to pin; what it held before and does not hold now is let go.

        Returns:
            Whether it is stored: not where it alone is too large, or what is pinned leaves no room.
        """
        path = self._path(tokens)
        start = sum(count for _, count in path)
        last, num_last = path[-1] if path else (self._root, 0)
        self._touch(last)
        new = cut(start, len(tokens)) if start < len(tokens) else None
        is_known = new is None and num_last == len(last.tokens) and last.checkpoint is not None
        checkpoint = take_checkpoint() if take_checkpoint is not None and not is_known else None
        arriving = [part for part in (new, checkpoint) if part is not None]
        if not self._make_room(sum(part.num_bytes for part in arriving), last):
            return False
        must_end_here = new is not None or checkpoint is not None or key is not None
        if num_last < len(last.tokens) and must_end_here:
            last = self._split(last, num_last)
        if new is not None:
            last = self._attach(last, tokens[start:], new)
        if checkpoint is not None:
            last.checkpoint = checkpoint
        for part in arriving:
            part.evaluate()
            self.num_bytes += part.num_bytes
        if key is not None:
            self._pin(key, last)
        self._bound_pinned()
        return True

    def session(self, key: str) -> Tokens | None:
        """The tokens of a pinned session."""
        node = self._sessions.get(key)
        if node is None:
            return None
        runs = [n.tokens for n in node.to_root()]
        return tuple(token for run in reversed(runs) for token in run)

    def unpin(self, key: str) -> None:
        """Let a session go; what it held stays until its turn comes."""
        node = self._sessions.pop(key, None)
        for held in node.to_root() if node is not None else ():
            held.num_pins -= 1
            if held.num_pins == 0:
                self._order[held] = None

    # matching ----------------------------------------------------------------------------------

    def _path(self, tokens: Tokens) -> list[tuple[_Node[SegmentT, CheckpointT], int]]:
        """The nodes that `tokens` lead through, and how many tokens they share with each."""
        path = []
        node, start = self._root, 0
        while start < len(tokens):
            child = node.children.get(tokens[start])
            if child is None:
                break
            count = common_prefix(child.tokens, tokens[start : start + len(child.tokens)])
            path.append((child, count))
            if count < len(child.tokens):
                break
            node, start = child, start + count
        return path

    def _useful(self, path: Sequence[tuple[_Node[SegmentT, CheckpointT], int]]) -> tuple[int, int]:
        """How many tokens, and nodes, of a path can be restored."""
        num_nodes = len(path)
        if self._needs_checkpoints:
            while num_nodes > 0:
                node, count = path[num_nodes - 1]
                if count == len(node.tokens) and node.checkpoint is not None:
                    break
                num_nodes -= 1
        return sum(count for _, count in path[:num_nodes]), num_nodes

    # changing ----------------------------------------------------------------------------------

    def _touch(self, node: _Node[SegmentT, CheckpointT]) -> None:
        for used in node.to_root():
            if used.num_pins == 0:
                self._order.move_to_end(used)

    def _make_room(self, num_bytes: int, spared: _Node[SegmentT, CheckpointT]) -> bool:
        """Evict until so many bytes fit, but nothing that `spared` ends, which was touched."""
        path = set(spared.to_root())
        if sum(node.num_bytes for node in path) + num_bytes > self.max_bytes:
            return False
        while self.num_bytes + num_bytes > self.max_bytes:
            oldest = next(iter(self._order), None)
            if oldest is None or oldest in path:
                return False
            self._evict(oldest, path)
        return True

    def _evict(
        self,
        leaf: _Node[SegmentT, CheckpointT],
        spared: Set[_Node[SegmentT, CheckpointT]],
    ) -> None:
        """Remove a leaf, and what above it only led there."""
        while True:
            parent = leaf.parent
            assert parent is not None and not leaf.children and leaf.num_pins == 0
            del parent.children[leaf.tokens[0]], self._order[leaf]
            self.num_bytes -= leaf.num_bytes
            is_of_use = not self._needs_checkpoints or parent.checkpoint is not None
            is_held = parent.num_pins > 0 or parent in spared or parent is self._root
            if parent.children or is_held or is_of_use:
                return
            leaf = parent

    def _split(self, node: _Node[SegmentT, CheckpointT], at: int) -> _Node[SegmentT, CheckpointT]:
        """Cut a node in two and return the upper one; the lower one stays the object it was."""
        parent = node.parent
        assert parent is not None
        first, rest = _segment(node).split(at)
        before = node.num_bytes
        upper: _Node[SegmentT, CheckpointT] = _Node(node.tokens[:at], first, parent)
        upper.num_pins = node.num_pins
        parent.children[node.tokens[0]] = upper
        node.tokens, node.segment, node.parent = node.tokens[at:], rest, upper
        upper.children[node.tokens[0]] = node
        self.num_bytes += upper.num_bytes + node.num_bytes - before
        if upper.num_pins == 0:
            self._order[upper] = None
        for part in (first, rest):
            part.evaluate()
        self._touch(upper)
        return upper

    def _attach(
        self, parent: _Node[SegmentT, CheckpointT], tokens: Tokens, segment: SegmentT
    ) -> _Node[SegmentT, CheckpointT]:
        node: _Node[SegmentT, CheckpointT] = _Node(tokens, segment, parent)
        parent.children[tokens[0]] = node
        self._order[node] = None
        self._touch(node)
        return node

    def resize(self, max_bytes: int) -> None:
        """Change the limit; what was used longest ago goes, until the rest fits."""
        self.max_bytes = max_bytes
        self._bound_pinned()
        while self.num_bytes > max_bytes:
            self._evict(next(iter(self._order)), frozenset())

    # sessions ----------------------------------------------------------------------------------

    def _pin(self, key: str, node: _Node[SegmentT, CheckpointT]) -> None:
        """Hold on to a path for a session, in place of what it held; not to one too large."""
        self.unpin(key)
        if sum(held.num_bytes for held in node.to_root()) > self.max_bytes // 2:
            return
        self._sessions[key] = node
        for held in node.to_root():
            held.num_pins += 1
            self._order.pop(held, None)

    def _bound_pinned(self) -> None:
        while self._sessions and self._pinned_bytes() > self.max_bytes // 2:
            self.unpin(next(iter(self._sessions)))

    def _pinned_bytes(self) -> int:
        pinned = {node for end in self._sessions.values() for node in end.to_root()}
        return sum(node.num_bytes for node in pinned)


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """How many leading tokens are equal. Compares runs, not tokens: cheap for long prompts."""
    low, high = 0, min(len(first), len(second))
    if first[:high] == second[:high]:
        return high
    while high - low > 1:  # the first `low` are equal, and one of [low, high) differs
        middle = (low + high) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _segment(node: _Node[SegmentT, CheckpointT]) -> SegmentT:
    assert node.segment is not None  # only the root has none
    return node.segment
