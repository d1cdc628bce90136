"""Backends from outside of the package: a small protocol, and our index and guide over it.

A registered backend only has to say which tokens may come next. What callers are promised beyond
that is seen to here and in the engine: limits of numbers and nesting, endings within the token
budget, and a check of every finished text.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from litellm_mlx.errors import ConstraintError, EngineError, LiteLLMMLXError
from litellm_mlx.grammar.guide import LimitedGuide, not_allowed, stop_bitmask
from litellm_mlx.grammar.matcher import NotCompiledError
from litellm_mlx.registered import backends
from litellm_mlx.types import Constraint, Tier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from litellm_mlx.grammar.check import Check
    from litellm_mlx.grammar.guide import Bitmask, Guide
    from litellm_mlx.grammar.vocabulary import Vocabulary

# Of a vocabulary of 150,000 tokens one takes 19 kB.
MAX_BITMASKS = 1024


class Automaton(Protocol):
    """A constraint compiled for one vocabulary: states, and tokens that lead from one to another.

    It never changes, and any thread may call any method. States are values that can be hashed;
    equal states allow equal texts.
    """

    @property
    def start(self) -> Hashable:
        """The state at the beginning of the text."""
        ...

    def allowed(self, state: Any) -> Iterable[int]:
        """The tokens that may come next. Where the text may end says `is_accepting`."""
        ...

    def advance(self, state: Any, token_id: int) -> Hashable:
        """The state after an allowed token."""
        ...

    def is_accepting(self, state: Any) -> bool:
        """Whether the text may end here."""
        ...


@dataclass(frozen=True, slots=True)
class RegisteredBackend:
    """What makes automata; see `extend.register_backend`."""

    compile: Callable[[Constraint, Vocabulary], Automaton]
    is_exact: bool


class AutomatonIndex:
    """Index over an automaton; see `compiler.Index`.

    Args:
        automaton: of the constraint.
        constraint: what it is to enforce.
        vocabulary: of the model.
        compile_s: that it took.
        tier: whether the automaton alone holds, or a check too.
        check: what finished texts are held against.
    """

    def __init__(
        self,
        automaton: Automaton,
        constraint: Constraint,
        vocabulary: Vocabulary,
        *,
        compile_s: float,
        tier: Tier,
        check: Check,
    ) -> None:
        self.automaton = automaton
        self.constraint = constraint
        self.vocabulary = vocabulary
        self.compile_s = compile_s
        self.tier = tier
        self.check = check
        self._bitmasks: dict[Hashable, Bitmask] = {}

    def guide(self) -> Guide:
        """Give a new cursor."""
        guide = AutomatonGuide(self)
        is_json = self.constraint.kind == "json_schema"
        return LimitedGuide(guide, self.vocabulary) if is_json else guide

    def bitmask(self, state: Hashable) -> Bitmask:
        """What may come in a state, as `Guide.fill_bitmask` has it. Shared: not to be changed.

        Raises:
            ConstraintError: nothing may come, or the backend failed.
        """
        row = self._bitmasks.get(state)
        if row is None:
            if len(self._bitmasks) >= MAX_BITMASKS:
                self._bitmasks.clear()
            row = self._bitmasks[state] = self._make_bitmask(state)
        return row

    def advance(self, state: Hashable, token_id: int) -> Hashable:
        """The state after an allowed token.

        Raises:
            ConstraintError: the backend failed.
        """
        with self.as_our_error():
            return self.automaton.advance(state, token_id)

    def is_accepting(self, state: Hashable) -> bool:
        """Whether the text may end here.

        Raises:
            ConstraintError: the backend failed.
        """
        with self.as_our_error():
            return bool(self.automaton.is_accepting(state))

    @contextmanager
    def as_our_error(self) -> Iterator[None]:
        """Let a failure of the backend's end one request, and not the engine of all others."""
        try:
            yield
        except Exception as error:  # another package's code may raise anything
            raise ConstraintError(
                f"the backend {self.constraint.backend} failed: {type(error).__name__}: {error}"
            ) from error

    def _make_bitmask(self, state: Hashable) -> Bitmask:
        vocabulary = self.vocabulary
        with self.as_our_error():
            row = vocabulary.bitmask(self.automaton.allowed(state))
        row &= vocabulary.derived("text_tokens", _text_tokens)
        if self.is_accepting(state):
            row |= vocabulary.derived("stop_bitmask", stop_bitmask)
        if not row.any():
            raise ConstraintError(
                f"the backend {self.constraint.backend} has led to a place where neither a token "
                "may come nor the text may end"
            )
        return row


class AutomatonGuide:
    """Guide over an automaton. Nothing is forced: the model is asked for every token."""

    json_place = None  # see `LimitedGuide`

    def __init__(self, index: AutomatonIndex) -> None:
        """Start at the beginning of the text."""
        self._index = index
        self._state = index.automaton.start
        self._has_stopped = False

    @property
    def vocabulary(self) -> Vocabulary:
        """Whose tokens it allows."""
        return self._index.vocabulary

    @property
    def state(self) -> Hashable:
        """The automaton's state."""
        return self._state

    @property
    def is_accepting(self) -> bool:
        """The text may end here."""
        return self._has_stopped or self._index.is_accepting(self._state)

    @property
    def is_finished(self) -> bool:
        """The text can only end here."""
        return self._has_stopped or not (self._bitmask() & ~self._stops).any()

    @property
    def _stops(self) -> Bitmask:
        return self.vocabulary.derived("stop_bitmask", stop_bitmask)

    def _bitmask(self) -> Bitmask:
        return self._stops if self._has_stopped else self._index.bitmask(self._state)

    def fill_bitmask(self, row: Bitmask) -> None:
        """Write which tokens may come next; see `Guide`."""
        row[:] = self._bitmask()

    def advance(self, token_id: int) -> None:
        """Take the token that was sampled; see `Guide`."""
        if self._has_stopped or not self._bitmask()[token_id >> 5] >> (token_id & 31) & 1:
            raise not_allowed(token_id, f"says the backend {self._index.constraint.backend}")
        if token_id in self.vocabulary.stop_token_ids:
            self._has_stopped = True
        else:
            self._state = self._index.advance(self._state, token_id)

    def forced(self) -> list[int]:
        """Nothing; see `Guide`."""
        return []

    fast_forward = forced

    def allows(self, token_ids: Sequence[int]) -> bool:
        """Whether the grammar lets these tokens come next; see `Guide`."""
        return not self._has_stopped and self._after(token_ids) is not None

    def ends_with(self, token_ids: Sequence[int]) -> bool:
        """Whether the text may end after these tokens; see `Guide`."""
        after = self._after(token_ids)
        return after is not None and after.is_accepting

    def copy(self) -> AutomatonGuide:
        """Give another cursor at the same place; see `Guide`."""
        return copy.copy(self)

    def _after(self, token_ids: Sequence[int]) -> AutomatonGuide | None:
        """The place after some tokens; `None` where they may not come."""
        other = self.copy()
        try:
            for token_id in token_ids:
                other.advance(token_id)
            other._bitmask()  # of a dead end, too, a guess must not lead to
        except (ConstraintError, EngineError):
            return None
        return other


def compile_registered(constraint: Constraint, vocabulary: Vocabulary) -> AutomatonIndex:
    """Compile a constraint with the registered backend that it names.

    Raises:
        ConstraintError: there is no such backend, or nothing here can check its texts.
        NotCompiledError: the backend does not take the constraint, in its own words.
    """
    from litellm_mlx.grammar.text_check import check_of

    backend = backends.get(constraint.backend)
    if not isinstance(backend, RegisteredBackend):
        raise ConstraintError(f"no constraint backend is named {constraint.backend!r}")
    start_s = time.monotonic()
    check = check_of(constraint, is_vouched_for=backend.is_exact)
    try:
        automaton = backend.compile(constraint, vocabulary)
    except LiteLLMMLXError:
        raise
    except Exception as error:  # another package's code may raise anything
        raise NotCompiledError(f"{type(error).__name__}: {error}") from error
    return AutomatonIndex(
        automaton,
        constraint,
        vocabulary,
        compile_s=time.monotonic() - start_s,
        tier="grammar" if backend.is_exact else "grammar+check",
        check=check,
    )


def _text_tokens(vocabulary: Vocabulary) -> Bitmask:
    """Bitmask of the tokens that a text may be made of."""
    control = frozenset(vocabulary.control_token_ids)
    return vocabulary.bitmask(
        i
        for i in range(vocabulary.tokenizer_vocab_size)
        if i not in control and vocabulary.token_bytes(i)
    )
