"""What a server's clients may name and ask for, and which of its workers owns the models."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier

import pytest

from litellm_mlx import network
from litellm_mlx.config import EngineConfig
from litellm_mlx.errors import ForbiddenModelError, UnsupportedParameterError, WorkerError


def owns_models() -> bool:
    """Runs in a worker; asks twice, since a server asks at every request."""
    try:
        network.own_models()
        network.own_models()
    except WorkerError:
        return False
    return True


def ask_together(barrier: Barrier, answers: multiprocessing.SimpleQueue[bool]) -> None:
    barrier.wait(60)
    answers.put(owns_models())
    barrier.wait(60)  # the lock lasts as long as its process


def test_of_several_workers_one_owns_the_models() -> None:
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(3), context.SimpleQueue()
    workers = [context.Process(target=ask_together, args=(barrier, answers)) for _ in range(3)]
    for worker in workers:
        worker.start()
    found = [answers.get() for _ in workers]
    for worker in workers:
        worker.join(60)
    assert sorted(found) == [False, False, True]
    with ProcessPoolExecutor(1, mp_context=context) as pool:  # the owner has gone
        assert pool.submit(owns_models).result(60)


def test_a_process_of_its_own_needs_no_leave() -> None:
    assert owns_models() and network._lock is None


@pytest.mark.parametrize("name", ["qwen3-4b", "QWEN3-4B", "org/allowed-1"])
def test_aliases_and_what_is_allowed_may_be_named(name: str) -> None:
    network.check_model(name, EngineConfig(allowed_models=("org/allowed-*",)))


@pytest.mark.parametrize(
    "name", ["/etc", "org/repo", "org/allowed", "qwen3-4b?adapter=/x", "./here", "x.gguf"]
)
def test_everything_else_may_not(name: str) -> None:
    with pytest.raises(ForbiddenModelError, match="not served here"):
        network.check_model(name, EngineConfig(allowed_models=("org/allowed-*",)))


def test_limits_hold_where_they_are_set() -> None:
    limited = EngineConfig(client_max_tokens=100, client_max_n=2)
    network.check_size({"max_tokens": 100, "n": 2}, limited)
    network.check_size({"max_tokens": 10**6, "n": 50}, EngineConfig())
    for params in ({"max_tokens": 101}, {"n": 3}):
        with pytest.raises(UnsupportedParameterError, match="over the limit"):
            network.check_size(params, limited)
    assert network.client_config(limited).default_max_tokens == 100
    assert network.client_config(EngineConfig()).default_max_tokens > 100
