"""The tree of stored prefixes, with lists of tokens in place of keys and values."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from litellm_mlx.kvcache.prefix_tree import PrefixTree, Tokens, common_prefix

BYTES_PER_TOKEN = 10


@dataclass(frozen=True)
class Run:
    """Keeps the tokens themselves, so that what is found can be checked."""

    tokens: Tokens

    @property
    def num_bytes(self) -> int:
        return BYTES_PER_TOKEN * len(self.tokens)

    def split(self, at: int) -> tuple[Run, Run]:
        return Run(self.tokens[:at]), Run(self.tokens[at:])

    def evaluate(self) -> None:
        pass


@dataclass(frozen=True)
class State:
    """Of all tokens up to one place."""

    tokens: Tokens
    num_bytes: int = 100

    def evaluate(self) -> None:
        pass


Tree = PrefixTree[Run, State]


def insert(tree: Tree, tokens: Tokens, *, has_state: bool = False, key: str | None = None) -> bool:
    take = (lambda: State(tokens)) if has_state else None
    return tree.insert(tokens, lambda start, end: Run(tokens[start:end]), take, key=key)


def found(tree: Tree, tokens: Tokens) -> Tokens:
    """The tokens that the match restores; they must be the first of those asked for."""
    match = tree.find(tokens)
    restored = tuple(t for run, count in match.parts for t in run.tokens[:count])
    assert len(restored) == match.length and restored == tokens[: match.length]
    return restored


def sizes(tree: Tree) -> int:
    """Bytes of the nodes, counted afresh."""
    nodes, total = [tree._root], 0
    while nodes:
        node = nodes.pop()
        total += node.num_bytes
        nodes += node.children.values()
    return total


def tokens(text: str) -> Tokens:
    return tuple(map(ord, text))


@pytest.mark.parametrize("seed", range(20))
def test_the_longest_common_prefix_is_found_and_stored_once(seed: int) -> None:
    rng = random.Random(seed)
    tree: Tree = PrefixTree(10**9)
    stored: list[Tokens] = []
    for _ in range(200):
        prompt = tuple(rng.randrange(2) for _ in range(rng.randrange(1, 20)))
        expected = max((common_prefix(prompt, other) for other in stored), default=0)
        assert tree.match_length(prompt) == expected == len(found(tree, prompt))
        assert insert(tree, prompt)
        stored.append(prompt)
    prefixes = {prompt[:end] for prompt in stored for end in range(1, len(prompt) + 1)}
    assert tree.num_bytes == sizes(tree) == BYTES_PER_TOKEN * len(prefixes)


@pytest.mark.parametrize("seed", range(20))
def test_bytes_stay_within_the_limit_whatever_comes(seed: int) -> None:
    rng = random.Random(seed)
    tree: Tree = PrefixTree(600, needs_checkpoints=seed % 2 == 1)
    for _ in range(400):
        prompt = tuple(rng.randrange(3) for _ in range(rng.randrange(1, 30)))
        key = rng.choice((None, None, "a", "b", "c"))
        insert(tree, prompt, has_state=seed % 2 == 1, key=key)
        found(tree, tuple(rng.randrange(3) for _ in range(20)))
        if rng.random() < 0.1:
            tree.unpin(rng.choice("abc"))
        assert tree.num_bytes == sizes(tree) <= 600
        assert tree._pinned_bytes() <= 300


def test_common_prefix_agrees_with_counting() -> None:
    rng = random.Random(1)
    for _ in range(500):
        first = tuple(rng.randrange(2) for _ in range(rng.randrange(40)))
        same = rng.randrange(len(first) + 1)
        second = first[:same] + tuple(rng.randrange(2) for _ in range(rng.randrange(10)))
        pairs = list(zip(first, second, strict=False))
        equal = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
        assert common_prefix(first, second) == equal


def test_only_what_is_missing_is_cut() -> None:
    tree: Tree = PrefixTree(10**9)
    insert(tree, tokens("system: one"))
    asked: list[tuple[int, int]] = []

    def cut(start: int, end: int) -> Run:
        asked.append((start, end))
        return Run(tokens("system: two")[start:end])

    tree.insert(tokens("system: two"), cut)
    tree.insert(tokens("system: two"), cut)
    tree.insert(tokens("system"), cut)
    assert asked == [(8, 11)]


def test_the_least_recently_used_leaf_goes_first() -> None:
    tree: Tree = PrefixTree(9 * BYTES_PER_TOKEN)
    insert(tree, tokens("abcX"))
    insert(tree, tokens("abcY"))
    insert(tree, tokens("defg"))
    assert found(tree, tokens("abcX")) == tokens("abcX")
    insert(tree, tokens("h"))  # one too many: "Y" goes, its prefix is in use
    assert [tree.match_length(tokens(t)) for t in ("abcX", "abcY", "defg", "h")] == [4, 3, 4, 1]
    insert(tree, tokens("i"))
    assert [tree.match_length(tokens(t)) for t in ("abcX", "defg", "h", "i")] == [4, 0, 1, 1]


def test_what_is_too_large_alone_is_refused_and_evicts_nothing() -> None:
    tree: Tree = PrefixTree(10 * BYTES_PER_TOKEN)
    insert(tree, tokens("abc"))
    assert not insert(tree, tokens("defghijklmn"))
    assert not insert(tree, tokens("abcdefghijklmn"))
    assert found(tree, tokens("abc")) == tokens("abc")


def test_without_bytes_nothing_is_stored() -> None:
    tree: Tree = PrefixTree(0)
    assert not insert(tree, tokens("abc"))
    assert tree.match_length(tokens("abc")) == 0


def test_a_checkpoint_is_used_only_where_it_ends_a_prefix() -> None:
    tree: Tree = PrefixTree(10**9, needs_checkpoints=True)
    insert(tree, tokens("system"), has_state=True)
    insert(tree, tokens("system user"), has_state=True)
    assert tree.match_length(tokens("system user: hi")) == 11
    assert tree.match_length(tokens("system use")) == 6
    assert tree.match_length(tokens("syst")) == 0
    match = tree.find(tokens("system us"))
    assert match.checkpoint == State(tokens("system"))
    assert not tree.find(tokens("sys")).parts


def test_a_checkpoint_can_come_to_stored_tokens_later_and_is_taken_once() -> None:
    tree: Tree = PrefixTree(10**9, needs_checkpoints=True)
    insert(tree, tokens("system user"), has_state=True)
    insert(tree, tokens("system"), has_state=True)
    assert tree.match_length(tokens("system mess")) == 6
    before = tree.num_bytes
    insert(tree, tokens("system"), has_state=True)
    assert tree.num_bytes == before == sizes(tree)


def test_what_led_to_an_evicted_checkpoint_only_goes_with_it() -> None:
    tree: Tree = PrefixTree(400, needs_checkpoints=True)
    insert(tree, tokens("abX"), has_state=True)
    insert(tree, tokens("abY"), has_state=True)
    insert(tree, tokens("cdefghij"), has_state=True)
    insert(tree, tokens("klmnopqr"), has_state=True)
    assert tree.match_length(tokens("abX")) == tree.match_length(tokens("abY")) == 0
    assert tree.num_bytes == sizes(tree) == 2 * (100 + 8 * BYTES_PER_TOKEN)


def test_a_pinned_session_outlives_others_and_moves_with_its_chat() -> None:
    tree: Tree = PrefixTree(40 * BYTES_PER_TOKEN)
    insert(tree, tokens("chat: one"), key="me")
    insert(tree, tokens("chat: one, two"), key="me")
    for i in range(100):
        insert(tree, tuple(range(1000 * i, 1000 * i + 10)))
    assert tree.session("me") == found(tree, tokens("chat: one, two")) == tokens("chat: one, two")
    insert(tree, tokens("other talk"), key="me")
    for i in range(100):
        insert(tree, tuple(range(1000 * i, 1000 * i + 10)))
    assert tree.session("me") == tokens("other talk")
    assert tree.match_length(tokens("chat: one")) == 0


def test_pinned_sessions_hold_half_at_most_and_the_oldest_is_let_go() -> None:
    tree: Tree = PrefixTree(40 * BYTES_PER_TOKEN)
    insert(tree, tokens("aaaaaaaa"), key="a")
    insert(tree, tokens("bbbbbbbb"), key="b")
    insert(tree, tokens("aaaaaaaa"), key="a")
    insert(tree, tokens("cccccccc"), key="c")
    assert [tree.session(key) is None for key in "abc"] == [False, True, False]
    assert tree.match_length(tokens("bbbbbbbb")) == 8  # stored still, until its turn comes
    insert(tree, tokens("d" * 21), key="d")
    assert [tree.session(key) is None for key in "acd"] == [False, False, True]


def test_two_sessions_share_what_they_have_in_common() -> None:
    tree: Tree = PrefixTree(100 * BYTES_PER_TOKEN)
    insert(tree, tokens("system: a"), key="a")
    insert(tree, tokens("system: b"), key="b")
    assert tree.num_bytes == 10 * BYTES_PER_TOKEN
    tree.unpin("a")
    for i in range(30):
        insert(tree, tuple(range(1000 * i, 1000 * i + 20)))
    assert tree.match_length(tokens("system: a")) == 8
    assert tree.match_length(tokens("system: b")) == 9


def test_a_smaller_limit_lets_go_what_was_used_longest_ago_and_sessions_keep_half() -> None:
    tree: Tree = PrefixTree(1000)
    for number, text in enumerate(("aaaaa", "bbbbb", "ccccc", "ddddd")):
        insert(tree, tokens(text), key=text if number == 0 else None)
    found(tree, tokens("bbbbb"))
    tree.resize(100)
    assert sizes(tree) == tree.num_bytes == 100
    assert found(tree, tokens("aaaaa")) and found(tree, tokens("bbbbb"))
    assert not found(tree, tokens("ccccc")) and not found(tree, tokens("ddddd"))
    tree.resize(60)  # the session alone would have more than half of it
    assert tree.num_bytes <= 60
    tree.resize(0)
    assert tree.num_bytes == 0 and not found(tree, tokens("aaaaa"))
    tree.resize(1000)
    assert insert(tree, tokens("eeeee"))
