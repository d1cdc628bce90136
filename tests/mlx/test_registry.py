"""Several models in one process: loaded once, within one budget, never unloaded under a request."""

from __future__ import annotations

import dataclasses
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import litellm_mlx.models.registry as registry_module
from litellm_mlx.config import EngineConfig
from litellm_mlx.engine.engine import Engine
from litellm_mlx.errors import (
    EngineError,
    EngineStoppedError,
    ModelBusyError,
    ModelLoadError,
    ModelNotFoundError,
)
from litellm_mlx.models.loader import LoadedModel
from litellm_mlx.models.memory import MARGIN_BYTES
from litellm_mlx.models.registry import ModelRegistry
from tests.tiny_engine import collect, request
from tests.tiny_model import make_tiny_adapter, make_tiny_model

TWO_MODELS_BYTES = 2 * MARGIN_BYTES + MARGIN_BYTES // 2


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    return [str(make_tiny_model(folder / f"model{i}", seed=i)) for i in range(3)]


@pytest.fixture
def registry(request: pytest.FixtureRequest) -> Iterator[ModelRegistry]:
    registry = ModelRegistry(EngineConfig(**getattr(request, "param", {})))
    yield registry
    registry.unload_all()


def names(registry: ModelRegistry) -> set[str]:
    return {status.name for status in registry.models()}


def wait_until(holds: Callable[[], bool], timeout_s: float = 20) -> None:
    end_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def answer(registry: ModelRegistry, name: str, number: int) -> str:
    with registry.lease(name) as lease:
        lease.engine.model(timeout_s=60)
        return collect(lease.engine.submit(request(number, None, max_tokens=8)))[0]


budget_for_two = pytest.mark.parametrize(
    "registry", [{"models_budget_bytes": TWO_MODELS_BYTES}], indirect=True
)


@budget_for_two
def test_three_models_share_a_budget_for_two(registry: ModelRegistry, paths: list[str]) -> None:
    """Two hundred mixed requests from eight threads: all answered, never more than two models."""
    expected = {(p, n): answer(registry, p, n) for p in paths for n in range(4)}
    rng = random.Random(1)
    asked = [(rng.choice(paths), rng.randrange(4)) for _ in range(200)]
    most = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            held = sum(s.weights_bytes + s.kv_bytes + s.prefix_bytes for s in registry.models())
            most.append((held, sum(s.state == "ready" for s in registry.models())))
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda pair: answer(registry, *pair), asked))
    is_over.set()
    watcher.join()
    assert answers == [expected[pair] for pair in asked]
    assert max(held for held, _ in most) <= TWO_MODELS_BYTES
    assert {number for _, number in most} <= {0, 1, 2}


@budget_for_two
def test_what_was_used_longest_ago_goes(registry: ModelRegistry, paths: list[str]) -> None:
    for name in (paths[0], paths[1], paths[0], paths[2]):
        answer(registry, name, 0)
    assert names(registry) == {paths[0], paths[2]}


@budget_for_two
def test_a_pinned_model_stays(registry: ModelRegistry, paths: list[str]) -> None:
    registry.pin(paths[0])
    for name in paths:
        answer(registry, name, 0)
    assert names(registry) == {paths[0], paths[2]}
    registry.pin(paths[2])
    with pytest.raises(ModelLoadError, match="GiB"):
        answer(registry, paths[1], 0)
    registry.pin(paths[0], is_pinned=False)
    answer(registry, paths[1], 0)
    assert names(registry) == {paths[1], paths[2]}


@budget_for_two
def test_a_model_in_use_is_waited_for(registry: ModelRegistry, paths: list[str]) -> None:
    leases = [registry.lease(path) for path in paths[:2]]
    for lease in leases:
        lease.engine.model(timeout_s=60)
    with ThreadPoolExecutor(1) as pool:
        third = pool.submit(answer, registry, paths[2], 0)
        time.sleep(0.3)
        assert not third.done() and names(registry) == set(paths)  # the third waits for its place
        leases[0].release()
        third.result(timeout=60)
    assert names(registry) == {paths[1], paths[2]}
    leases[1].release()


@budget_for_two
def test_what_waits_for_room_ends_with_the_others(
    registry: ModelRegistry, paths: list[str]
) -> None:
    leases = [registry.lease(path) for path in paths[:2]]
    for lease in leases:
        lease.engine.model(timeout_s=60)
    third = registry.lease(paths[2])
    registry.unload_all()
    with pytest.raises(EngineStoppedError, match="unloaded"):
        third.engine.model(timeout_s=5)


def test_a_name_without_a_model_leaves_nothing_behind(registry: ModelRegistry) -> None:
    for _ in range(2):
        with pytest.raises(ModelNotFoundError), registry.lease("/no/such/model") as lease:
            lease.engine.model(timeout_s=60)
    assert not registry._entries


def test_a_dropped_lease_is_a_released_one(registry: ModelRegistry, paths: list[str]) -> None:
    lease = registry.lease(paths[0])
    with pytest.raises(ModelBusyError, match="1 request"):
        registry.unload(paths[0])
    assert lease is not None
    del lease
    registry.unload(paths[0])
    assert names(registry) == set()
    registry.unload(paths[0])


@pytest.mark.parametrize("registry", [{"idle_unload_s": 0.3}], indirect=True)
def test_an_idle_model_is_unloaded(registry: ModelRegistry, paths: list[str]) -> None:
    registry.pin(paths[1])
    with registry.lease(paths[0]):
        answer(registry, paths[1], 0)
        time.sleep(0.7)
        assert names(registry) == {paths[0], paths[1]}
    wait_until(lambda: names(registry) == {paths[1]})
    assert answer(registry, paths[0], 0)
    wait_until(lambda: names(registry) == {paths[1]})


def test_caches_share_what_the_weights_leave(registry: ModelRegistry, paths: list[str]) -> None:
    def limits(engine: Engine[LoadedModel]) -> tuple[int, int]:
        return engine.call(lambda worker: (worker.budget.max_bytes, worker._prefixes.max_bytes))

    engines = []
    shares = []
    for path in paths:
        engines.append(registry.engine(path))
        engines[-1].model(timeout_s=60)
        shares.append([limits(engine) for engine in engines])
    budget = registry.budget_bytes
    assert budget is not None
    for found in shares:
        assert sum(kv + prefix for kv, prefix in found) <= budget
        assert len(set(found)) == 1, "each has the same"
    registry.unload(paths[0])
    wait_until(lambda: limits(engines[1]) == shares[1][0])


def test_adapters_share_the_weights_of_their_base(
    registry: ModelRegistry, paths: list[str], tmp_path: Path
) -> None:
    adapters = [make_tiny_adapter(tmp_path / f"a{i}", paths[0], seed=i) for i in range(2)]
    models = [paths[0], *(f"{paths[0]}?adapter={adapter}" for adapter in adapters)]
    texts = [answer(registry, name, 0) for name in models]
    assert len(set(texts)) == 3
    loaded = [registry.loaded(name) for name in models]
    bases = {id(model.base) for model in loaded if model is not None}
    assert len(bases) == 1
    for name, text in zip(models, texts, strict=True):  # also after the others have been loaded
        assert answer(registry, name, 0) == text
    registry.unload(models[0])
    assert answer(registry, models[1], 0) == texts[1]
    alone = ModelRegistry(EngineConfig())
    assert answer(alone, models[2], 0) == texts[2]
    alone.unload_all()


def replace_adapter(path: Path, base: str, seed: int) -> None:
    """Write another adapter in the place of one, as a further training does."""
    new = make_tiny_adapter(path.with_name("new"), base, seed=seed)
    for file in new.iterdir():
        file.replace(path / file.name)
    new.rmdir()


def test_an_adapter_that_is_replaced_in_place_is_noticed(
    registry: ModelRegistry, paths: list[str], tmp_path: Path
) -> None:
    """The next request is answered by the new one; whom the old one answers, it goes on to."""
    adapter = make_tiny_adapter(tmp_path / "adapter", paths[0], seed=0)
    name = f"{paths[0]}?adapter={adapter}"
    old_text = answer(registry, name, 0)
    registry.pin(name)
    with registry.lease(name) as held:
        replace_adapter(adapter, paths[0], seed=1)
        new_text = answer(registry, name, 0)
        assert new_text != old_text
        assert collect(held.engine.submit(request(0, None, max_tokens=8)))[0] == old_text
        old_engine = held.engine
    wait_until(lambda: not old_engine.is_alive)
    assert answer(registry, name, 0) == new_text
    assert [status.is_pinned for status in registry.models()] == [True]
    for file in adapter.iterdir():
        file.unlink()
    assert answer(registry, name, 0) == new_text, "one that is gone stays in use"


METAL_ERROR = "[METAL] Command buffer execution failed: Insufficient Memory (00000008)"


class FailingModel:
    """A model under which the device fails at the first pass over more than so many tokens."""

    def __init__(self, model: Any, message: str, num_tokens: int) -> None:
        self._model = model
        self._message = message
        self._num_tokens = num_tokens

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, tokens: Any, **kwargs: Any) -> Any:
        if tokens.size > self._num_tokens:
            raise RuntimeError(self._message)
        return self._model(tokens, **kwargs)


# The engine's own passes, to find out what the model can do, are over 20 tokens at most.
@pytest.mark.parametrize(("num_tokens", "told"), [(20, "the engine failed"), (0, "first forward")])
@pytest.mark.parametrize(
    ("message", "falls_back"),
    [
        (METAL_ERROR, True),
        ("cudaStreamSynchronize(stream_) failed: unspecified launch failure", True),
        ("shapes (2,3) and (4,5) cannot be broadcast", False),
    ],
)
def test_after_a_failure_of_the_gpu_models_are_loaded_on_the_cpu(
    registry: ModelRegistry,
    paths: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    message: str,
    falls_back: bool,
    num_tokens: int,
    told: str,
) -> None:
    """No GPU is at hand: the error is raised where MLX would, and the choice is looked at."""
    chosen: list[str] = []
    loaded: list[LoadedModel] = []
    original = registry_module.load_model

    def load(*args: Any, **kwargs: Any) -> LoadedModel:
        loaded.append(original(*args, **kwargs))
        if len(loaded) > 1:
            return loaded[-1]
        failing = FailingModel(loaded[0].model, message, num_tokens)
        return dataclasses.replace(loaded[0], model=failing)

    monkeypatch.setattr(registry_module, "load_model", load)
    monkeypatch.setattr(registry_module, "use_cpu", lambda: chosen.append("cpu"))
    with pytest.raises((EngineError, ModelLoadError), match=told):
        answer(registry, paths[0], 1)
    with caplog.at_level(logging.WARNING, "litellm_mlx"):
        assert answer(registry, paths[0], 1)
        assert answer(registry, paths[1], 1)
    assert chosen == (["cpu", "cpu"] if falls_back else [])


@pytest.mark.parametrize("registry", [{"device": "cpu"}], indirect=True)
def test_the_cpu_can_be_chosen(registry: ModelRegistry, paths: list[str]) -> None:
    import mlx.core as mx

    assert answer(registry, paths[0], 1)
    assert mx.default_device() == mx.Device(mx.cpu)
    with registry.lease(paths[0]) as lease:
        assert lease.engine.model().hardware.device == "cpu"
