"""Which waiting requests are prefilled next: their order, their places and their memory.

First come, first served, with three exceptions. What does not fit now may be overtaken by what
does, but only so often: then nothing else is admitted until it fits, so that it does not starve,
and the others wait for the rows before it, not for ever. What shares the beginning of its prompt
with one that is being prefilled waits for that one, and finds it in the prefix cache. What had to
leave the batch for want of memory comes back before all others.

Memory is counted as the batch uses it: every row is as wide as the longest. A row is counted with
the tokens it has and some that it may come to have, not all that `max_tokens` allows, which few
use. Where that turns out too little, the youngest rows leave the batch for a while.

Pure Python: what a row costs and what prompts share is told by others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from litellm_mlx.engine.sequence import MAX_TOKENS_PER_PASS, RunningRequest, Sequence
from litellm_mlx.errors import KVBudgetError
from litellm_mlx.types import GenerationRequest

# That a row may still come to have: a usual answer, and mlx-lm's growth of a cache four times.
RESERVED_TOKENS = 1024
# Sharing less than this is not worth waiting for: a chunk of prefill or two.
MIN_SHARED_TOKENS = 32
_MIB = 1 << 20


class Cost(Protocol):
    """What a row costs, see `kvcache.cost`."""

    def row_bytes(self, num_tokens: int) -> int: ...  # noqa: D102


@dataclass(slots=True)
class KVBudget:
    """The memory that layer caches of running rows may take. Any thread may ask.

    Attributes:
        max_bytes: of all rows together; the engine's thread may change it.
        cost: of one row; `None` where nobody knows, and everything fits.
    """

    max_bytes: int
    cost: Cost | None

    def fits(self, num_rows: int, num_tokens: int) -> bool:
        """Whether so many rows fit, the longest with `num_tokens`."""
        return self._needed_bytes(num_rows, num_tokens) <= self.max_bytes

    def staying(self, rows: list[Sequence], num_others: int) -> list[int]:
        """Which rows fit with their next tokens; the youngest have to go, the oldest never has.

        Args:
            rows: that decode.
            num_others: further rows in the batch.

        Returns:
            Their indexes, ascending.
        """
        lengths = [reserved_tokens(row, MAX_TOKENS_PER_PASS) for row in rows]
        by_age = sorted(range(len(rows)), key=lambda i: age_of(rows[i]))
        while len(by_age) > 1 and not self.fits(
            num_others + len(by_age), max(lengths[i] for i in by_age)
        ):
            by_age.pop()
        return sorted(by_age)

    def refuse_what_never_fits(self, request: GenerationRequest) -> None:
        """Refuse a request that would not fit even if it had all the memory.

        That is one whose longest completion does not fit alone, or whose prompt does not fit as
        often as it has completions; more than one can wait for another.

        Raises:
            KVBudgetError: with the bytes it needs and those there are.
        """
        num_prompt = len(request.prompt_token_ids)
        needed_bytes = max(
            self._needed_bytes(1, num_prompt + request.max_tokens),
            self._needed_bytes(request.n, num_prompt),
        )
        if needed_bytes <= self.max_bytes:
            return
        raise KVBudgetError(
            f"a prompt of {num_prompt:,} tokens with n={request.n} and max_tokens="
            f"{request.max_tokens:,} needs {needed_bytes / _MIB:,.1f} MiB of KV cache, and there "
            f"are {self.max_bytes / _MIB:,.1f} MiB for all requests; lower max_tokens or n, "
            "shorten the prompt, or raise LITELLM_MLX_KV_BUDGET_BYTES where there is more memory"
        )

    def _needed_bytes(self, num_rows: int, num_tokens: int) -> int:
        return 0 if self.cost is None else num_rows * self.cost.row_bytes(num_tokens)


def age_of(sequence: Sequence) -> float:
    """What rows are ordered by, oldest first."""
    return sequence.running.submitted_s


def reserved_tokens(sequence: Sequence, more: int | None = None) -> int:
    """Tokens that a row is counted with: what it has, and as many `more` as may come."""
    request = sequence.request
    more = RESERVED_TOKENS if more is None else more
    num_completion = min(request.max_tokens, len(sequence.token_ids) + more)
    return len(request.prompt_token_ids) + num_completion


class WaitingRequests:
    """The requests that wait for a place in the batch. For the engine's thread only.

    Args:
        max_rows: of the batch.
        budget: of its memory.
        shared_tokens: how many tokens of the first prompt the prefix cache would hold once the
            second one is through.
        cached_tokens: how many tokens of a prompt it holds now.
    """

    def __init__(
        self,
        max_rows: int,
        budget: KVBudget,
        *,
        shared_tokens: Callable[[tuple[int, ...], tuple[int, ...]], int],
        cached_tokens: Callable[[tuple[int, ...]], int],
    ) -> None:
        self._max_rows = max_rows
        self._budget = budget
        self._shared_tokens = shared_tokens
        self._cached_tokens = cached_tokens
        self._queue: deque[RunningRequest] = deque()

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    def __iter__(self) -> Iterator[RunningRequest]:
        """In their order. Any thread may iterate: over a copy, which is atomic."""
        return iter(tuple(self._queue))

    @property
    def num_sequences(self) -> int:
        """How many completions wait. Any thread may ask."""
        return sum(len(running.sequences) for running in self)

    def add(self, running: RunningRequest) -> None:
        """Append a request."""
        self._queue.append(running)

    def add_first(self, returning: Iterable[RunningRequest]) -> None:
        """Put requests that have been running before all others, in this order."""
        self._queue.extendleft(reversed(list(returning)))

    def keep(self, is_kept: Callable[[RunningRequest], bool]) -> None:
        """Drop all others."""
        self._queue = deque(running for running in self._queue if is_kept(running))

    def clear(self) -> None:
        """Drop all."""
        self._queue.clear()

    def admit(
        self, max_prompts: int, prefilling: list[RunningRequest], decoding: list[Sequence]
    ) -> list[RunningRequest]:
        """Take out those to be prefilled now.

        Args:
            max_prompts: how many at most.
            prefilling: requests in the batch whose prompts are not through.
            decoding: sequences in the batch that decode.
        """
        rows = [*decoding, *(s for running in prefilling for s in running.sequences)]
        if not self._queue or max_prompts <= 0 or len(rows) >= self._max_rows:
            return []
        num_rows = len(rows)
        longest = max(map(reserved_tokens, rows), default=0)
        admitted: list[RunningRequest] = []
        passed_over: list[RunningRequest] = []
        for running in self._queue:
            if len(admitted) == max_prompts or num_rows >= self._max_rows:
                break
            more = len(running.sequences)
            longer = max(longest, *map(reserved_tokens, running.sequences))
            if not self._fits(num_rows, more, longer):
                passed_over.append(running)
                if running.num_overtaken >= self._max_rows:
                    break
            elif not self._is_held_back(running, [*prefilling, *admitted]):
                for other in passed_over:
                    other.num_overtaken += more
                admitted.append(running)
                num_rows, longest = num_rows + more, longer
        if admitted:
            taken = {*admitted}
            self.keep(lambda running: running not in taken)
        return admitted

    def _fits(self, num_rows: int, more: int, num_tokens: int) -> bool:
        """Whether rows find a place; what is too much for any batch is served alone."""
        if num_rows == 0:
            return True
        num_rows += more
        return num_rows <= self._max_rows and self._budget.fits(num_rows, num_tokens)

    def _is_held_back(self, running: RunningRequest, prefilling: list[RunningRequest]) -> bool:
        """Whether it gains by waiting for one that is being prefilled; it does so only once."""
        if running.waits_for is not None:
            return running.waits_for in prefilling
        prompt = running.request.prompt_token_ids
        if len(prompt) <= MIN_SHARED_TOKENS or not prefilling:
            return False
        shared, leader = max(
            ((self._shared_tokens(prompt, r.request.prompt_token_ids), r) for r in prefilling),
            key=lambda pair: pair[0],
        )
        if shared < MIN_SHARED_TOKENS or shared - self._cached_tokens(prompt) < MIN_SHARED_TOKENS:
            return False
        running.waits_for = leader
        return True
