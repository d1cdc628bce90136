"""Model name to running engine: each model is loaded once, however many threads ask."""

from __future__ import annotations

import threading
from collections.abc import Hashable

from litellm_mlx.config import EngineConfig
from litellm_mlx.engine.engine import Engine
from litellm_mlx.errors import LiteLLMMLXError
from litellm_mlx.models.loader import LoadedModel, load_model
from litellm_mlx.models.names import ModelSpec, parse_model_name


class ModelRegistry:
    """The engines of this process. Any thread may call any method.

    Args:
        config: settings of every engine that the registry starts.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self._engines: dict[Hashable, Engine[LoadedModel]] = {}
        self._lock = threading.Lock()

    def engine(self, name: str) -> Engine[LoadedModel]:
        """The engine of a model, started if there is none that lives; it may still be loading.

        Args:
            name: without the `mlx/` prefix; see `models.names`.

        Raises:
            ModelNotFoundError: the name is no alias, repository or path.
            UnsupportedParameterError: an unknown option in the name.
        """
        spec = parse_model_name(name)
        with self._lock:
            engine = self._engines.get(spec.key)
            if engine is None or not engine.is_alive:
                engine = self._engines[spec.key] = self._start(spec)
            return engine

    def loaded(self, name: str) -> LoadedModel | None:
        """The model of a name if it is in memory already; `None` for every other name."""
        try:
            key = parse_model_name(name).key
        except LiteLLMMLXError:
            return None
        with self._lock:
            engine = self._engines.get(key)
        return engine.model_if_loaded if engine is not None else None

    def unload_all(self) -> None:
        """Shut every engine down and forget it."""
        with self._lock:
            engines, self._engines = self._engines, {}
        for engine in engines.values():
            engine.shutdown()

    def _start(self, spec: ModelSpec) -> Engine[LoadedModel]:
        return Engine(lambda: load_model(spec, self.config), self.config, name=spec.name)
