"""A session's cache on disk, as mlx-lm writes prompt caches; its own tools can read the file.

The metadata holds the session's key, its tokens and the fingerprint of the model: keys and values
of other weights, or of another precision, would be taken for this model's without a complaint.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from litellm_mlx.errors import PromptCacheError
from litellm_mlx.kvcache.prefix_tree import Tokens
from litellm_mlx.kvcache.row_state import KVSegment, RowMatch, RowSnapshot

_SUFFIX = ".safetensors"
_HEADER_SIZE = struct.Struct("<Q")  # of a safetensors file: its header's length comes first
# mlx-lm flattens [our metadata, class names, scalars]; ours is the first of them.
_METADATA_PREFIX = "0."
_KEYS = ("key", "tokens", "fingerprint")


@dataclass(frozen=True, slots=True)
class Session:
    """What a file holds: the tokens, and what the model keeps of them in each kind of layer."""

    key: str
    tokens: Tokens
    segment: KVSegment
    taken: RowSnapshot | None

    @property
    def num_bytes(self) -> int:
        """Bytes of the arrays."""
        return self.segment.num_bytes + (0 if self.taken is None else self.taken.num_bytes)


def write_session(
    path: Path, model: Any, fingerprint: str, *, key: str, tokens: Tokens, match: RowMatch
) -> None:
    """Write a session; an older file of that name is replaced once the new one is whole.

    Args:
        path: ends in `.safetensors`.
        model: the session is of.
        fingerprint: of the model.
        key: of the session.
        tokens: of the session.
        match: all that is stored of them.

    Raises:
        PromptCacheError: the path cannot be written, or has another ending; or the model has a
            kind of cache that cannot be read back.
    """
    from mlx_lm.models import cache as kinds

    if path.suffix != _SUFFIX:
        raise PromptCacheError(f"{path} must end in {_SUFFIX}, the format that mlx-lm writes")
    caches = _row_caches(model, match)
    for own in caches:
        if not hasattr(kinds, type(own).__name__):
            raise PromptCacheError(f"mlx-lm cannot read a {type(own).__name__} back from a file")
    metadata = {"key": key, "tokens": json.dumps(tokens), "fingerprint": fingerprint}
    part = path.with_name(f".{path.stem}.{os.getpid()}{_SUFFIX}")
    try:
        kinds.save_prompt_cache(str(part), caches, metadata)
        part.replace(path)
    except (OSError, RuntimeError) as error:  # MLX raises the second where it cannot write
        part.unlink(missing_ok=True)
        raise PromptCacheError(f"cannot write {path}: {error}") from error


def read_session(path: Path, model: Any, fingerprint: str) -> Session:
    """Read what `write_session` wrote; nothing is evaluated yet.

    Raises:
        PromptCacheError: no such file, not one of ours, incomplete, or of another model.
    """
    from mlx_lm.models.cache import KVCache, load_prompt_cache

    metadata = _metadata(path)
    if metadata["fingerprint"] != fingerprint:
        raise PromptCacheError(
            f"{path} was saved with another model, or another form of it "
            f"({metadata['fingerprint']}; this one is {fingerprint}); save it again with this one"
        )
    caches = load_prompt_cache(str(path))
    plain: list[Any] = [cache for cache in caches if type(cache) is KVCache]
    others = [cache for cache in caches if type(cache) is not KVCache]
    return Session(
        key=metadata["key"],
        tokens=tuple(json.loads(metadata["tokens"])),
        segment=KVSegment(
            tuple(None if cache.keys is None else (cache.keys, cache.values) for cache in plain)
        ),
        taken=RowSnapshot(tuple(others)) if others else None,
    )


def _row_caches(model: Any, match: RowMatch) -> list[Any]:
    """mlx-lm's cache of each layer, for one row."""
    from mlx_lm.models.cache import KVCache, make_prompt_cache

    others = iter(match.checkpoint.layers if match.checkpoint is not None else ())
    caches: list[Any] = []
    num_plain = 0
    for fresh in make_prompt_cache(model):
        if type(fresh) is not KVCache:
            caches.append(next(others))
            continue
        pairs = [(segment.layers[num_plain], count) for segment, count in match.parts]
        held = [(pair, count) for pair, count in pairs if pair is not None]
        if held:  # else the layer holds nothing, see `KVSegment`
            fresh.keys, fresh.values = (
                mx.concatenate([pair[which][:, :, :count] for pair, count in held], axis=2)
                for which in (0, 1)
            )
        fresh.offset = match.length
        caches.append(fresh)
        num_plain += 1
    return caches


def _metadata(path: Path) -> dict[str, str]:
    """Ours, of a file that is whole.

    MLX reads arrays late and on threads of its own, where the end of a cut file is fatal: so the
    header is read here, and the length checked, before MLX sees the file.
    """
    try:
        with path.open("rb") as file:
            (size,) = _HEADER_SIZE.unpack(file.read(_HEADER_SIZE.size))
            header = json.loads(file.read(min(size, path.stat().st_size)))
        metadata = header.pop("__metadata__")
        end = max((array["data_offsets"][1] for array in header.values()), default=0)
        if path.stat().st_size != _HEADER_SIZE.size + size + end:
            raise PromptCacheError(f"{path} is not complete; save it again")
        return {key: str(metadata[_METADATA_PREFIX + key]) for key in _KEYS}
    except OSError as error:
        raise PromptCacheError(f"cannot read {path}: {error}") from error
    except (struct.error, ValueError, LookupError, TypeError, AttributeError) as error:
        raise PromptCacheError(
            f"{path} is not a cache that litellm_mlx.save_cache wrote"
        ) from error
