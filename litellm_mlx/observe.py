"""Tells whoever asks how requests went: numbers and names only, never a word of a prompt.

Owns the list of those who ask, and the short memory of errors that the status page shows. What is
made of the numbers is theirs; `metrics` makes Prometheus figures of them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from litellm_mlx.errors import LiteLLMMLXError, RequestCancelled
from litellm_mlx.types import Done, Tier

logger = logging.getLogger("litellm_mlx")

MAX_ERRORS = 50


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
class Failed:
    """A request that ended with an error, or whose caller left.

    Attributes:
        model: as it was asked for, without `mlx/`.
        error: the name of its kind.
        http_status: that the caller gets.
        at_s: seconds since the epoch.
    """

    model: str
    error: str
    http_status: int
    at_s: float = field(default_factory=time.time)


Outcome = Answered | Failed
Observer = Callable[[Outcome], None]

_lock = threading.Lock()
_observers: list[Observer] = []
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


def recent_errors() -> list[Failed]:
    """The last errors, newest first; callers that left are none."""
    with _lock:
        return list(reversed(_errors))


def note(outcome: Outcome) -> None:
    """Tell all observers."""
    with _lock:
        observers = list(_observers)
        if isinstance(outcome, Failed) and outcome.error != RequestCancelled.__name__:
            _errors.append(outcome)
    for observer in observers:
        try:
            observer(outcome)
        except Exception:
            logger.exception("an observer of requests failed")


def note_error(model: str, error: BaseException) -> None:
    """Tell all observers of an error of ours, or of one that we did not expect."""
    status = error.http_status if isinstance(error, LiteLLMMLXError) else 500
    note(Failed(model, type(error).__name__, status))
