"""Who comes into the batch, in which order, and what memory has to do with it."""

from __future__ import annotations

import itertools
from typing import Any, cast

import pytest

from litellm_mlx.engine.admission import (
    MIN_SHARED_TOKENS,
    RESERVED_TOKENS,
    KVBudget,
    WaitingRequests,
    reserved_tokens,
)
from litellm_mlx.engine.sequence import RunningRequest, Sequence
from litellm_mlx.engine.stream import Channel
from litellm_mlx.errors import KVBudgetError
from litellm_mlx.types import GenerationRequest

CLOCK = itertools.count()


class FakeSequence:
    """What admission sees of a completion."""

    def __init__(self, running: RunningRequest, num_tokens: int = 0) -> None:
        self.running = running
        self.request = running.request
        self.token_ids = list(range(num_tokens))


class ByteEach:
    """A model whose every token costs a byte."""

    def row_bytes(self, num_tokens: int) -> int:
        return num_tokens


def running(
    prompt: int | tuple[int, ...] = 10, max_tokens: int = 90, n: int = 1, num_tokens: int = 0
) -> RunningRequest:
    tokens = (next(CLOCK),) * prompt if isinstance(prompt, int) else prompt
    made = RunningRequest(GenerationRequest(tokens, max_tokens, n=n), Channel())
    made.submitted_s = next(CLOCK)
    made.sequences = [cast(Sequence, FakeSequence(made, num_tokens)) for _ in range(n)]
    return made


def shared(prompt: tuple[int, ...], other: tuple[int, ...]) -> int:
    pairs = zip(prompt[:-1], other[:-1], strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def waiting(
    *requests: RunningRequest,
    max_rows: int = 4,
    max_bytes: int = 10**9,
    cached: dict[tuple[int, ...], int] | None = None,
) -> WaitingRequests:
    made = WaitingRequests(
        max_rows,
        KVBudget(max_bytes, ByteEach()),
        shared_tokens=shared,
        cached_tokens=lambda prompt: (cached or {}).get(prompt, 0),
    )
    for request in requests:
        made.add(request)
    return made


def admit(
    queue: WaitingRequests, *decoding: RunningRequest, prompts: int = 8, **options: Any
) -> list[RunningRequest]:
    rows = [sequence for request in decoding for sequence in request.sequences]
    return queue.admit(prompts, options.get("prefilling", []), rows)


def test_first_come_first_served_up_to_the_places_and_prompts() -> None:
    requests = [running() for _ in range(6)]
    queue = waiting(*requests)
    assert admit(queue, prompts=3) == requests[:3]
    assert admit(queue, *requests[:3]) == requests[3:4]
    assert admit(queue, *requests[:4]) == []
    assert list(queue) == requests[4:] and queue.num_sequences == 2


def test_what_is_too_much_for_any_batch_is_served_alone() -> None:
    big, small = running(n=9), running()
    queue = waiting(big, small)
    assert admit(queue, running()) == [small]
    assert admit(queue) == [big]


def test_a_large_request_is_overtaken_but_does_not_starve() -> None:
    large = running(n=4)
    busy = running()  # one row stays taken for long
    queue = waiting(large)
    overtaken = 0
    for _ in range(100):
        small = running()
        queue.add(small)
        if small not in admit(queue, busy):
            break
        overtaken += 1
    assert overtaken == 4
    # now it has to get its places, and the small ones come after it
    assert admit(queue, busy) == []
    assert admit(queue) == [large]
    assert admit(queue) == [small]


def test_rows_are_counted_as_wide_as_the_longest() -> None:
    short, long = running(10, 90), running(500, 100)
    assert admit(waiting(long, max_bytes=1200), short) == [long]
    assert admit(waiting(long, max_bytes=1199), short) == []
    assert admit(waiting(long, max_bytes=700)) == [long]


def test_a_row_is_counted_with_part_of_what_it_may_become() -> None:
    (sequence,) = running(10, 8192).sequences
    assert reserved_tokens(sequence) == 10 + RESERVED_TOKENS
    (sequence,) = running(10, 8192, num_tokens=100).sequences
    assert reserved_tokens(sequence) == 110 + RESERVED_TOKENS
    (sequence,) = running(10, 100, num_tokens=90).sequences
    assert reserved_tokens(sequence) == 110


def test_the_youngest_rows_go_and_the_oldest_never_has_to() -> None:
    old, middle, young = (running(100, 5000, num_tokens=400) for _ in range(3))
    rows = [r.sequences[0] for r in (young, old, middle)]
    each = 500 + 64
    assert KVBudget(3 * each, ByteEach()).staying(rows, 0) == [0, 1, 2]
    assert KVBudget(3 * each, ByteEach()).staying(rows, 1) == [1, 2]
    assert KVBudget(2 * each, ByteEach()).staying(rows, 0) == [1, 2]
    assert KVBudget(1, ByteEach()).staying(rows, 9) == [1]


@pytest.mark.parametrize(("n", "max_tokens", "max_bytes"), [(1, 90, 99), (5, 10, 49), (3, 90, 99)])
def test_what_can_never_fit_is_refused_with_both_numbers(
    n: int, max_tokens: int, max_bytes: int
) -> None:
    request = running(10, max_tokens, n).request
    KVBudget((max_bytes + 1) << 20, MebibyteEach()).refuse_what_never_fits(request)
    with pytest.raises(KVBudgetError, match=rf"{max_bytes + 1}\.0 MiB.*{max_bytes}\.0 MiB"):
        KVBudget(max_bytes << 20, MebibyteEach()).refuse_what_never_fits(request)


class MebibyteEach:
    """A model whose every token costs 1 MiB."""

    def row_bytes(self, num_tokens: int) -> int:
        return num_tokens << 20


def test_where_no_cost_is_known_everything_fits() -> None:
    budget = KVBudget(1, None)
    assert budget.fits(100, 10**9)
    budget.refuse_what_never_fits(running(10**5).request)


def test_a_prompt_that_is_being_prefilled_is_waited_for_once() -> None:
    head = tuple(range(1000, 1000 + 2 * MIN_SHARED_TOKENS))
    first, second, third = (running((*head, i, i)) for i in range(3))
    other = running((*range(100),))
    queue = waiting(first, second, third, other, max_rows=8)
    assert admit(queue) == [first, other]
    assert admit(queue, prefilling=[first, other]) == []
    # the first is through, and whatever the cache has of it, both go on
    assert admit(queue, first, prefilling=[other]) == [second, third]


def test_nobody_waits_for_what_the_cache_has_or_for_a_few_tokens() -> None:
    head = tuple(range(2 * MIN_SHARED_TOKENS))
    first, second = running((*head, 1, 1)), running((*head, 2, 2))
    queue = waiting(first, second, cached={second.request.prompt_token_ids: len(head)})
    assert admit(queue) == [first, second]
    head = tuple(range(MIN_SHARED_TOKENS - 1))
    first, second = running((*head, 1, 1, 1)), running((*head, 2, 2, 2))
    assert admit(waiting(first, second)) == [first, second]


def test_what_had_to_leave_comes_back_first() -> None:
    waits, first, second = running(), running(), running()
    queue = waiting(waits)
    queue.add_first([first, second])
    assert admit(queue) == [first, second, waits]
