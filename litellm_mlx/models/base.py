"""A model's weights and tokenizer as its files have them, shared by every engine that runs on them.

What is changed afterwards, by an adapter or by the engine, is the tree of modules, so that each
engine gets one of its own over the same arrays.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litellm_mlx.config import EngineConfig
from litellm_mlx.models.hardware import HardwareProfile


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class BaseModel:
    """A model without an adapter.

    Attributes:
        identity: of its files.
        model: mlx-lm's module, which nobody runs or changes; see `tree`.
        tokenizer: mlx-lm's TokenizerWrapper.
        config: of the model, as its files have it.
        dtype: how the weights are held, for people.
        weights_bytes: of all of them.
    """

    identity: str
    model: Any
    tokenizer: Any
    config: Mapping[str, Any]
    dtype: str
    weights_bytes: int

    def tree(self) -> Any:
        """A tree of modules over the same weights."""
        from mlx.utils import tree_flatten

        arrays: Any = tree_flatten(self.model.parameters())
        return copy.deepcopy(self.model, {id(array): array for _, array in arrays})


def load_base(
    root: Path, identity: str, config: EngineConfig, hardware: HardwareProfile
) -> BaseModel:
    """Read a model's files and expand the weights where that pays and fits."""
    from litellm_mlx.models.weights import expand_on_cpu, num_bytes

    model, tokenizer, model_config = _read(root, config)
    dtype = expand_on_cpu(model, hardware, wanted=config.expand_weights)
    return BaseModel(identity, model, tokenizer, model_config, dtype, num_bytes(model))


def _read(root: Path, config: EngineConfig) -> tuple[Any, Any, Mapping[str, Any]]:
    """Model, tokenizer and config of a GGUF file or of a directory in mlx-lm's form."""
    if root.is_file():
        from litellm_mlx.models.gguf import load_gguf

        return load_gguf(root)
    from mlx_lm.utils import load_model, load_tokenizer

    trust = config.trust_remote_code
    model, model_config = load_model(root, trust_remote_code=trust)
    tokenizer = load_tokenizer(
        root, {"trust_remote_code": trust}, eos_token_ids=model_config.get("eos_token_id")
    )
    return model, tokenizer, model_config
