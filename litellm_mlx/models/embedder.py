"""An embedding model's files -> vectors. All that mlx-vlm does for us happens here.

That library runs the layers and what follows them as sentence-transformers' files beside the
weights say; what it would leave out in silence is refused.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litellm_mlx.config import EngineConfig
from litellm_mlx.errors import ModelLoadError, PromptTooLongError, RequestError
from litellm_mlx.models.facts import read_json
from litellm_mlx.models.foreign import as_load_error
from litellm_mlx.models.hardware import HardwareProfile, hardware_profile
from litellm_mlx.models.loader import MakeRoom, find_files
from litellm_mlx.models.memory import refuse_unless_fits
from litellm_mlx.models.names import ModelSpec

if TYPE_CHECKING:
    from litellm_mlx.engine.embedding import Vectors

logger = logging.getLogger("litellm_mlx")

# Steps after the layers, as sentence-transformers' modules.json names them, that mlx-vlm takes.
_KNOWN_MODULES = {"Transformer", "Pooling", "Dense", "Normalize"}
# Below which a vector counts as zero, so that none is divided by it.
_TINY = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingModel:
    """A model that makes vectors, in the thread that loaded it.

    Attributes:
        name: as it was asked.
        model: mlx-vlm's module.
        tokenizer: transformers'.
        max_tokens: of one text, with what the model puts around it.
        dimensions: of a vector.
        prompts: texts that the model was trained to find before others, by name.
        weights_bytes: of all weights.
    """

    name: str
    model: Any
    tokenizer: Any
    max_tokens: int
    dimensions: int
    prompts: Mapping[str, str]
    weights_bytes: int
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, with what the model puts around it. Any thread may call.

        Raises:
            PromptTooLongError: a text is longer than the model takes.
            RequestError: one is empty, and the model puts nothing around it.
        """
        with self._lock:  # fast tokenizers are not safe with several threads
            token_ids: list[list[int]] = self.tokenizer(list(texts))["input_ids"]
        for index, ids in enumerate(token_ids):
            if not ids:
                raise RequestError(f"text {index} is empty")
            if len(ids) > self.max_tokens:
                raise PromptTooLongError(len(ids), self.max_tokens, f"split text {index}")
        return token_ids

    def forward(self, batch: Sequence[Sequence[int]]) -> Vectors:
        """Vectors of length 1, (B, dimensions), of B tokenized texts."""
        import mlx.core as mx
        import numpy as np

        width = max(len(ids) for ids in batch)
        padding = self.tokenizer.pad_token_id or 0
        tokens = mx.array([[*ids, *[padding] * (width - len(ids))] for ids in batch])
        mask = mx.array([[1] * len(ids) + [0] * (width - len(ids)) for ids in batch])
        vectors = self.model(tokens, attention_mask=mask).text_embeds.astype(mx.float32)
        length = mx.linalg.norm(vectors, axis=-1, keepdims=True)
        return np.array(vectors / mx.maximum(length, _TINY))

    def finish_device_work(self) -> None:
        """Wait until MLX is idle."""
        import mlx.core as mx

        mx.synchronize()


def load_embedding_model(
    spec: ModelSpec,
    config: EngineConfig,
    *,
    make_room: MakeRoom,
    wait_turn: Callable[[], object],
) -> EmbeddingModel:
    """Load what `spec` names; as `loader.load_model`, in the thread that will run it.

    Raises:
        ModelNotFoundError, ModelLoadError: see there, or mlx-vlm is not installed.
    """
    started_s = time.monotonic()
    hardware = hardware_profile()
    advice = "Check the files; mlx-vlm reads what sentence-transformers writes"
    with as_load_error(f"cannot load {spec.name!r} from {spec.location} to embed", advice):
        files = find_files(spec, hardware, progress=True)
        wait_turn()
        make_room(files.weights_bytes)
        loaded = _load(spec.name, files.root, config, hardware_profile())
    logger.info(
        "loaded %s in %.1f s: %s dimensions, %s tokens, on %s",
        *(spec.name, time.monotonic() - started_s, loaded.dimensions, loaded.max_tokens),
        hardware.device_name,
    )
    return loaded


def _load(name: str, root: Path, config: EngineConfig, hardware: HardwareProfile) -> EmbeddingModel:
    from transformers import AutoTokenizer

    from litellm_mlx.models.weights import expand_on_cpu, num_bytes

    weights_bytes = sum(path.stat().st_size for path in root.rglob("model*.safetensors"))
    refuse_unless_fits(name, weights_bytes, hardware)
    _refuse_unknown_modules(name, root)
    model = _load_layers(root)
    expand_on_cpu(model, hardware, wanted=config.expand_weights)
    tokenizer = AutoTokenizer.from_pretrained(root)
    loaded = EmbeddingModel(
        name=name,
        model=model,
        tokenizer=tokenizer,
        max_tokens=_max_tokens(name, root),
        dimensions=0,
        prompts=read_json(root, "config_sentence_transformers").get("prompts") or {},
        weights_bytes=num_bytes(model),
    )
    # The width is what comes out: modules after the layers may change it. The first pass proves
    # besides that the model runs.
    dimensions = loaded.forward(loaded.tokenize(["x"])).shape[1]
    return replace(loaded, dimensions=dimensions)


def _load_layers(root: Path) -> Any:
    try:
        from mlx_vlm.embedding_loader import load_embedding_model as load_layers
        from mlx_vlm.models.pooling import read_pooling_config
    except ImportError as error:
        raise ModelLoadError(
            f"embeddings need mlx-vlm ({error}); pip install 'litellm-mlx[embeddings]'"
        ) from error
    model = load_layers(root)
    model.pooling_config = read_pooling_config(root)
    return model


def _refuse_unknown_modules(name: str, root: Path) -> None:
    """Refuse a model whose vectors would be others than sentence-transformers makes."""
    path = root / "modules.json"
    modules = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    for module in modules:
        kind = str(module["type"]).rpartition(".")[2]
        is_read = kind != "Dense" or any((root / module["path"]).glob("*.safetensors"))
        if kind not in _KNOWN_MODULES or not is_read:
            raise ModelLoadError(
                f"cannot load {name!r}: its module {module['path']} ({kind}) is not known here, "
                "and without it the vectors would be others"
            )


def _max_tokens(name: str, root: Path) -> int:
    """The least that one of its files names."""
    config = read_json(root, "config")
    positions = config.get("max_position_embeddings")
    if positions and config.get("model_type") in ("roberta", "xlm-roberta"):
        positions -= config.get("pad_token_id", 1) + 1  # their positions begin there
    named = (positions, read_json(root, "sentence_bert_config").get("max_seq_length"))
    limits = [limit for limit in named if isinstance(limit, int)]
    if not limits:
        raise ModelLoadError(
            f"cannot load {name!r}: its config.json names no max_position_embeddings"
        )
    return min(limits)
