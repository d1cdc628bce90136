"""Model name to running engine: each model is loaded once, and unloaded when others need its place.

Owns which models are in memory. Who answers holds a lease, and what is leased or pinned stays; of
the rest, what was used longest ago goes first. Models are loaded one after another, and all of
them together, weights and caches, keep within one budget of memory.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, TypeVar
from weakref import WeakValueDictionary

from litellm_mlx.config import EngineConfig
from litellm_mlx.engine.embedding import EmbeddingEngine
from litellm_mlx.engine.engine import Engine
from litellm_mlx.errors import EngineStoppedError, LiteLLMMLXError, ModelBusyError
from litellm_mlx.models.adapters import adapter_stamp
from litellm_mlx.models.base import BaseModel
from litellm_mlx.models.embedder import EmbeddingModel, load_embedding_model
from litellm_mlx.models.hardware import GIB, hardware_profile, is_device_failure, use_cpu
from litellm_mlx.models.loader import LoadedModel, load_model
from litellm_mlx.models.memory import MARGIN_BYTES
from litellm_mlx.models.names import (
    BaseKey,
    ModelKey,
    ModelSpec,
    parse_chat_name,
    parse_embedding_name,
    parse_model_name,
)

if TYPE_CHECKING:
    from litellm_mlx.engine.worker import LiveRow
    from litellm_mlx.kvcache.layers import Batching

logger = logging.getLogger("litellm_mlx")

# Of the memory that was free when the first model was loaded.
_DEFAULT_BUDGET_SHARE = 0.9

# While a model waits for room: how often it looks whether it is wanted any more.
_LOOK_EVERY_S = 1.0

ModelState = Literal["loading", "ready"]
AnyEngine = Engine[LoadedModel] | EmbeddingEngine
EngineT = TypeVar("EngineT", bound=AnyEngine, covariant=True)


@dataclass(eq=False, slots=True)
class _Entry:
    """A model that is in memory, or on its way there."""

    spec: ModelSpec
    engine: AnyEngine
    num_leases: int = 0
    is_pinned: bool = False
    used_s: float = 0.0
    is_loaded: bool = False
    base: BaseModel | None = None  # once it is loaded, if it shares weights
    own_bytes: int = 0  # likewise, of weights that are not its base's
    # Of the adapter's files as they were when it began to load.
    adapter_stamp: object = None

    @property
    def is_outdated(self) -> bool:
        """Its adapter has been replaced since. One that is gone stays in use."""
        if self.spec.adapter is None:
            return False
        stamp = adapter_stamp(Path(self.spec.adapter))
        return stamp is not None and stamp != self.adapter_stamp

    @property
    def may_go(self) -> bool:
        """It is in memory, nobody uses it, and nobody wants it kept."""
        return self.is_loaded and self.num_leases == 0 and not self.is_pinned


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A model in memory, for people; see `ModelRegistry.models`.

    Attributes:
        name: as it was asked for first.
        embeds: it makes vectors and no answers.
        state: whether it is ready.
        is_pinned: it stays whatever happens.
        num_in_use: requests and other holders that keep it from being unloaded.
        idle_s: seconds since the last of them left.
        weights_bytes: of its weights, also of those that it shares with another adapter's model.
        kv_bytes: of the KV caches of its rows.
        prefix_bytes: of its prefix cache.
        num_live: completions that are being written.
        num_waiting: completions that wait for a place.
        live: those that are being written, one by one.
        prefill_done_tokens: that are through, of the prompts that wait or are being prefilled.
        prefill_total_tokens: all of these prompts' tokens.
        batching: how its rows may run together, see `kvcache.probe`; `None` while it loads.
    """

    name: str
    embeds: bool
    state: ModelState
    is_pinned: bool
    num_in_use: int
    idle_s: float
    weights_bytes: int
    kv_bytes: int
    prefix_bytes: int
    num_live: int
    num_waiting: int
    live: list[LiveRow]
    prefill_done_tokens: int = 0
    prefill_total_tokens: int = 0
    batching: Batching | None = None


class Lease(Generic[EngineT]):
    """A hold on a model: it is not unloaded before `release`, or before this is dropped."""

    def __init__(self, registry: ModelRegistry, entry: _Entry, engine: EngineT) -> None:
        self.engine = engine
        self._registry = registry
        self._entry: _Entry | None = entry

    def release(self) -> None:
        """Let go. Safe to call twice, from any thread."""
        entry, self._entry = self._entry, None
        if entry is not None:
            self._registry._release(entry)

    def __enter__(self) -> Lease[EngineT]:
        """Hold for a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go."""
        self.release()

    def __del__(self) -> None:
        """Who forgets it lets go."""
        self.release()


class ModelRegistry:
    """The engines of this process. Any thread may call any method.

    Args:
        config: settings of every engine that the registry starts.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self._entries: dict[ModelKey, _Entry] = {}
        self._bases: WeakValueDictionary[BaseKey, BaseModel] = WeakValueDictionary()
        # Guards all that is above; notified when a model becomes idle or leaves. Reentrant, since
        # a lease may be dropped, and so released, by a garbage collection anywhere.
        self._changed = threading.Condition(threading.RLock())
        self._one_load = threading.Lock()
        self._budget_bytes: int | None = config.models_budget_bytes
        self._timer: threading.Timer | None = None
        self._is_on_cpu = config.device == "cpu"
        self.num_loads = 0
        self.num_unloads = 0

    def lease(self, name: str) -> Lease[Engine[LoadedModel]]:
        """Hold a model that writes, started if none lives; its engine may still be loading.

        Args:
            name: without the `mlx/` prefix; see `models.names`.

        Raises:
            ModelNotFoundError: the name is no alias, repository or path, or makes vectors.
            UnsupportedParameterError: an unknown option in the name.
        """
        entry = self._hold(parse_chat_name(name))
        assert isinstance(entry.engine, Engine)
        return Lease(self, entry, entry.engine)

    def lease_embedder(self, name: str) -> Lease[EmbeddingEngine]:
        """Hold a model that makes vectors, as `lease` does one that writes."""
        entry = self._hold(parse_embedding_name(name))
        assert isinstance(entry.engine, EmbeddingEngine)
        return Lease(self, entry, entry.engine)

    def engine(self, name: str) -> Engine[LoadedModel]:
        """The engine of a model as `lease` gives it, but nothing keeps it from being unloaded."""
        with self.lease(name) as lease:
            return lease.engine

    def lease_any(self, name: str, *, embeds: bool | None = None) -> Lease[AnyEngine]:
        """Hold a model, whatever it does. Raises as `lease` does.

        Args:
            name: as in `lease`.
            embeds: it is to make vectors; where it is not said, aliases of such models are known.
        """
        if embeds is None:
            embeds = parse_model_name(name).embeds
        return self.lease_embedder(name) if embeds else self.lease(name)

    def preload(self, name: str) -> None:
        """Begin to load a model, without waiting. Raises as `lease` does."""
        self.lease_any(name).release()

    def pin(self, name: str, *, is_pinned: bool = True, embeds: bool | None = None) -> None:
        """Keep a model in memory from now on, or no longer. Starts it if need be."""
        with self._changed, self.lease_any(name, embeds=embeds) as lease:
            for entry in self._entries.values():
                if entry.engine is lease.engine:
                    entry.is_pinned = is_pinned

    def loaded(self, name: str) -> LoadedModel | None:
        """The model of a name if it is in memory already; `None` for every other name."""
        try:
            key = parse_chat_name(name).key
        except LiteLLMMLXError:
            return None
        with self._changed:
            entry = self._entries.get(key)
        model = entry.engine.model_if_loaded if entry is not None else None
        return model if isinstance(model, LoadedModel) else None

    def models(self) -> list[ModelStatus]:
        """What is in memory, most recently used first."""
        with self._changed:
            entries = sorted(self._entries.values(), key=lambda entry: -entry.used_s)
        return [_status(entry) for entry in entries if entry.engine.is_alive]

    @property
    def budget_bytes(self) -> int | None:
        """What all models together may take; `None` where none has been loaded yet."""
        return self._budget_bytes

    def unload(self, name: str) -> None:
        """Unload a model that nobody uses; nothing happens where it is not in memory.

        Raises:
            ModelBusyError: a request runs on it.
        """
        spec = parse_model_name(name)
        keys = [replace(spec, embeds=embeds).key for embeds in (False, True)]
        with self._changed:
            entries = [self._entries[key] for key in keys if key in self._entries]
            for entry in entries:
                if entry.num_leases > 0:
                    raise ModelBusyError(
                        f"{name!r} answers {entry.num_leases} requests; wait for them, or "
                        "unload_all()"
                    )
            self._forget(entries)
        self._shut_down(entries)

    def unload_all(self) -> None:
        """Shut every engine down and forget it, whoever uses it."""
        with self._changed:
            entries, self._entries = list(self._entries.values()), {}
            self._changed.notify_all()  # one may be waiting for room
        self._shut_down(entries)

    # leases ------------------------------------------------------------------------------------

    def _hold(self, spec: ModelSpec) -> _Entry:
        with self._changed:
            entry = self._entries.get(spec.key)
            if entry is None or not entry.engine.is_alive or entry.is_outdated:
                if entry is not None:
                    self._leave_failed_device(entry)
                new = self._entries[spec.key] = self._start(spec)
                if entry is not None and entry.engine.is_alive:
                    self._replace(entry, new)
                entry = new
            entry.num_leases += 1
            return entry

    def _replace(self, old: _Entry, new: _Entry) -> None:
        """Let a new one answer from now on; the old one goes once nobody holds it."""
        logger.info("the adapter of %s was replaced: loading it again", old.spec.name)
        new.is_pinned = old.is_pinned
        if old.num_leases == 0:
            self._retire(old)

    def _retire(self, entry: _Entry) -> None:
        """Shut down an engine that has a successor; nobody waits for that."""
        threading.Thread(target=self._shut_down, args=([entry],), daemon=True).start()

    def _leave_failed_device(self, entry: _Entry) -> None:
        """Load on the CPU from now on where a model's GPU failed: slow answers beside none."""
        if not self._is_on_cpu and is_device_failure(entry.engine.cause_of_failure):
            self._is_on_cpu = True
            logger.warning(
                "the GPU failed under %s (%s); models are loaded on the CPU from now on, until the "
                "process is started again",
                *(entry.spec.name, entry.engine.cause_of_failure),
            )

    def _release(self, entry: _Entry) -> None:
        with self._changed:
            entry.num_leases -= 1
            if entry.num_leases == 0:
                if self._entries.get(entry.spec.key, entry) is not entry and entry.engine.is_alive:
                    self._retire(entry)
                if not entry.engine.is_alive and self._entries.get(entry.spec.key) is entry:
                    self._leave_failed_device(entry)
                    del self._entries[entry.spec.key]
                entry.used_s = time.monotonic()
                self._changed.notify_all()
                self._watch_idle()

    def _watch_idle(self) -> None:
        """See to it that what stays idle is looked at when its time is up."""
        if self.config.idle_unload_s > 0 and self._timer is None:
            self._timer = threading.Timer(self.config.idle_unload_s, self._unload_idle)
            self._timer.daemon = True
            self._timer.start()

    def _unload_idle(self) -> None:
        with self._changed:
            self._timer = None
            latest_s = time.monotonic() - self.config.idle_unload_s
            gone = [e for e in self._entries.values() if e.may_go and e.used_s <= latest_s]
            self._forget(gone)
            if any(entry.may_go for entry in self._entries.values()):
                self._watch_idle()
        for entry in gone:
            logger.info("unloading %s: idle for %.0f s", entry.spec.name, self.config.idle_unload_s)
        self._shut_down(gone)

    # loading, on the engines' threads ----------------------------------------------------------

    def _start(self, spec: ModelSpec) -> _Entry:
        engine: AnyEngine
        stamp = None if spec.adapter is None else adapter_stamp(Path(spec.adapter))
        if spec.embeds:
            engine = EmbeddingEngine(
                partial(self._load_embedder, spec), self.config, name=spec.name
            )
        else:
            engine = Engine(partial(self._load, spec), self.config, name=spec.name)
        return _Entry(spec, engine, used_s=time.monotonic(), adapter_stamp=stamp)

    def _load(self, spec: ModelSpec) -> LoadedModel:
        self._choose_device()
        with ExitStack() as turn:  # fetching needs none, and may take minutes
            loaded = load_model(
                spec,
                self.config,
                bases=self._bases,
                make_room=partial(self._make_room, spec),
                wait_turn=partial(turn.enter_context, self._one_load),
            )
            free_bytes = self._note_loaded(spec, loaded.own_bytes, loaded.base)
            return replace(loaded, free_bytes=free_bytes)

    def _load_embedder(self, spec: ModelSpec) -> EmbeddingModel:
        self._choose_device()
        with ExitStack() as turn:
            loaded = load_embedding_model(
                spec,
                self.config,
                make_room=partial(self._make_room, spec),
                wait_turn=partial(turn.enter_context, self._one_load),
            )
            self._note_loaded(spec, loaded.weights_bytes, None)
            return loaded

    def _choose_device(self) -> None:
        if self._is_on_cpu:
            use_cpu()

    def _note_loaded(self, spec: ModelSpec, own_bytes: int, base: BaseModel | None) -> int:
        """Count a model's weights; returns what its caches may take."""
        with self._changed:
            entry = self._entries.get(spec.key)
            self.num_loads += 1
            if entry is not None:
                entry.is_loaded, entry.own_bytes, entry.base = True, own_bytes, base
            return self._share_rest()

    def _share_rest(self) -> int:
        """Give each model an equal part of what the weights leave, for its caches.

        Returns:
            The part.
        """
        assert self._budget_bytes is not None  # since the first load made room
        entries = list(self._entries.values())
        rest = self._budget_bytes - _weights_bytes(entries)
        part = max(rest, 0) // max(len(entries), 1)
        for entry in entries:
            if isinstance(entry.engine, Engine) and entry.engine.model_if_loaded is not None:
                entry.engine.notify(lambda worker: worker.resize(part))
        return part

    def _make_room(self, spec: ModelSpec, num_bytes: int) -> int:
        """Unload what may go until a model fits, and wait for what is in use.

        Args:
            spec: of the model.
            num_bytes: of its weights as they lie in its files.

        Returns:
            The bytes that it may take; fewer than it needs where nothing else is left to go.

        Raises:
            EngineStoppedError: it was itself unloaded meanwhile.
        """
        if self._budget_bytes is None:
            share = _DEFAULT_BUDGET_SHARE * hardware_profile().available_bytes
            self._budget_bytes = int(share)
        while True:
            with self._changed:
                own = self._entries.get(spec.key)
                if own is None or not own.engine.is_alive:
                    raise EngineStoppedError(f"{spec.name!r} was unloaded before it was loaded")
                # Those that are not loaded yet come after this one, and see to their own room.
                others = [
                    e for e in self._entries.values() if e.is_loaded and e.spec.key != spec.key
                ]
                held = _weights_bytes(others) + sum(_cache_bytes(entry) for entry in others)
                room = self._budget_bytes - held
                if num_bytes + MARGIN_BYTES <= room or not others:
                    return room
                idle = sorted((e for e in others if e.may_go), key=lambda entry: entry.used_s)
                gone = idle[:1]
                self._forget(gone)
                if not gone:
                    if all(entry.is_pinned for entry in others):
                        return room
                    logger.info(
                        "%s needs %.2f GiB: waiting for one of %s to become idle",
                        *(spec.name, num_bytes / GIB, ", ".join(e.spec.name for e in others)),
                    )
                    self._changed.wait(_LOOK_EVERY_S)
            for entry in gone:
                logger.info("unloading %s to make room for %s", entry.spec.name, spec.name)
            self._shut_down(gone)

    def _forget(self, entries: list[_Entry]) -> None:
        for entry in entries:
            del self._entries[entry.spec.key]

    def _shut_down(self, entries: list[_Entry]) -> None:
        """End engines that are forgotten already, and free their memory."""
        if not entries:
            return
        for entry in entries:
            entry.engine.shutdown()
        gc.collect()  # the models are held in circles
        with self._changed:
            self.num_unloads += len(entries)
            if self._budget_bytes is not None:
                self._share_rest()
            self._changed.notify_all()


def _weights_bytes(entries: list[_Entry]) -> int:
    """Of all of them; what several share counts once."""
    bases = {id(entry.base): entry.base.weights_bytes for entry in entries if entry.base}
    return sum(bases.values()) + sum(entry.own_bytes for entry in entries)


def _cache_bytes(entry: _Entry) -> int:
    """Of its caches, as they are or may soon be."""
    stats = entry.engine.stats()
    return max(stats.kv_bytes + stats.prefix_bytes, MARGIN_BYTES)


def _status(entry: _Entry) -> ModelStatus:
    stats = entry.engine.stats()
    is_ready = entry.engine.model_if_loaded is not None
    idle_s = 0.0 if entry.num_leases else time.monotonic() - entry.used_s
    return ModelStatus(
        name=entry.spec.name,
        embeds=entry.spec.embeds,
        state="ready" if is_ready else "loading",
        is_pinned=entry.is_pinned,
        num_in_use=entry.num_leases,
        idle_s=idle_s,
        weights_bytes=_weights_bytes([entry]),
        kv_bytes=stats.kv_bytes,
        prefix_bytes=stats.prefix_bytes,
        num_live=stats.num_live,
        num_waiting=stats.num_waiting,
        live=entry.engine.live(),
        prefill_done_tokens=stats.prefill_done_tokens,
        prefill_total_tokens=stats.prefill_total_tokens,
        batching=stats.batching,
    )
