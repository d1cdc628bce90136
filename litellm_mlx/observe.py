"""Tells whoever asks how requests went: numbers and names only, never a word of a prompt.

Owns the lists of those who ask, and the short memory of errors that the status page shows. What is
made of the numbers is theirs: `metrics` makes Prometheus figures of them, `tracing` spans.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from litellm_mlx.errors import ConstraintViolationError, LiteLLMMLXError, RequestCancelled
from litellm_mlx.types import Done, Tier

logger = logging.getLogger("litellm_mlx")

MAX_ERRORS = 50

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that ended well.

    Attributes:
        model: as it was asked for, without `mlx/`.
        tier: how its constraint held; `None` for free text.
        done: its usage, where its time went, how often it was drawn.
    """

    model: str
    tier: Tier | None
    done: Done


@dataclass(frozen=True, slots=True)
class Embedded:
    """A request for vectors that ended well.

    Attributes:
        model: as it was asked for, without `mlx/`.
        num_texts: that were embedded.
        num_tokens: of them.
        total_s: from its start to its end.
    """

    model: str
    num_texts: int
    num_tokens: int
    total_s: float


@dataclass(frozen=True, slots=True)
class Failed:
    """A request that ended with an error, or whose caller left.

    Attributes:
        model: as it was asked for, without `mlx/`.
        error: the name of its kind.
        http_status: that the caller gets.
        num_grammar_faults: as `Done` has it.
        at_s: seconds since the epoch.
    """

    model: str
    error: str
    http_status: int
    num_grammar_faults: int = 0
    at_s: float = field(default_factory=time.time)

    @property
    def is_cancelled(self) -> bool:
        """The caller left, which is nobody's fault."""
        return self.error == RequestCancelled.__name__


Outcome = Answered | Embedded | Failed
Observer = Callable[[Outcome], None]
Follower = Callable[[Mapping[str, Any]], Observer]

_lock = threading.Lock()
_observers: list[Observer] = []
_followers: list[Follower] = []
_errors: deque[Failed] = deque(maxlen=MAX_ERRORS)


def add_observer(observer: Observer) -> None:
    """Have a function called after every request, on whatever thread it ended.

    It should be quick. What it raises is logged and goes no further.
    """
    with _lock:
        if observer not in _observers:
            _observers.append(observer)


def remove_observer(observer: Observer) -> None:
    """Call it no more."""
    with _lock:
        if observer in _observers:
            _observers.remove(observer)


def add_follower(follower: Follower) -> None:
    """Have a function called where every request starts; it gives the observer of that one request.

    It is called on the caller's thread, or on one that has the caller's context variables, with the
    `litellm_params` that LiteLLM sent along. Otherwise as `add_observer`.
    """
    with _lock:
        if follower not in _followers:
            _followers.append(follower)


def remove_follower(follower: Follower) -> None:
    """Call it for no further request."""
    with _lock:
        if follower in _followers:
            _followers.remove(follower)


def recent_errors() -> list[Failed]:
    """The last errors, newest first; callers that left are none."""
    with _lock:
        return list(reversed(_errors))


class Asked:
    """A request under way: made where it starts, it tells all observers of its end, once.

    Args:
        model: as it was asked for, without `mlx/`.
        litellm_params: what LiteLLM sent along, for followers.
    """

    def __init__(self, model: str, litellm_params: Mapping[str, Any]) -> None:
        with _lock:
            followers = list(_followers)
        self.model = model
        self._own = [_quietly(follower, litellm_params) for follower in followers]
        self._started_s = time.monotonic()
        self._is_over = False

    def answered(self, tier: Tier | None, done: Done) -> None:
        """It ended well."""
        self._end(Answered(self.model, tier, done))

    def embedded(self, num_texts: int, num_tokens: int) -> None:
        """It ended well, with vectors."""
        total_s = time.monotonic() - self._started_s
        self._end(Embedded(self.model, num_texts, num_tokens, total_s))

    def failed(self, error: BaseException) -> None:
        """It ended with an error of ours, with one that we did not expect, or its caller left."""
        if not isinstance(error, Exception):  # a stream that is closed, a task that is cancelled
            error = RequestCancelled()
        status = error.http_status if isinstance(error, LiteLLMMLXError) else 500
        faults = error.num_grammar_faults if isinstance(error, ConstraintViolationError) else 0
        self._end(Failed(self.model, type(error).__name__, status, faults))

    def _end(self, outcome: Outcome) -> None:
        if self._is_over:  # a stream may be closed after its last event
            return
        self._is_over = True
        with _lock:
            observers = list(_observers)
            if isinstance(outcome, Failed) and not outcome.is_cancelled:
                _errors.append(outcome)
        for observer in (*observers, *self._own):
            if observer is not None:
                _quietly(observer, outcome)


def _quietly(function: Callable[[A], B], argument: A) -> B | None:
    try:
        return function(argument)
    except Exception:
        logger.exception("an observer of requests failed")
        return None
