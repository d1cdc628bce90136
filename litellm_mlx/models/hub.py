"""Repositories of the Hugging Face hub -> a local snapshot directory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from litellm_mlx.errors import ModelNotFoundError
from litellm_mlx.models.foreign import as_load_error

# The folders in which sentence-transformers keeps what comes after an embedding model's layers.
_MODULES = "[0-9]_*/*.safetensors"


def fetch_snapshot(
    repository: str,
    revision: str | None = None,
    *,
    check_size: Callable[[int], None] | None = None,
    progress: bool = True,
) -> Path:
    """Directory with the repository's files, fetched first where the cache lacks them.

    Without a connection the cached snapshot serves. huggingface_hub's environment variables
    (HF_ENDPOINT, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE) hold.

    Args:
        repository: as org/repo.
        revision: branch, tag or commit; the default branch without it.
        check_size: called with the bytes of the weights before they are fetched, if the
            repository states them; what it raises ends the fetch.
        progress: show huggingface_hub's progress bars.

    Raises:
        ModelNotFoundError: no such repository or revision, or no leave to read it.
        ModelLoadError: the hub cannot be reached and nothing is cached.
    """
    from mlx_lm.utils import DEFAULT_ALLOW_PATTERNS

    with _as_our_errors(repository, revision):
        small = _snapshot(repository, revision, ["*.json"], progress=False)
        if check_size is not None and (num_bytes := _stated_bytes(small)) is not None:
            check_size(num_bytes)
        # The folder's name is the commit, so both steps see the same one.
        patterns = [*DEFAULT_ALLOW_PATTERNS, _MODULES]
        return _snapshot(repository, small.name, patterns, progress=progress)


def _snapshot(
    repository: str, revision: str | None, patterns: list[str], *, progress: bool
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import tqdm

    class SilentTqdm(tqdm):
        """The hub's progress bar, switched off for one call only."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs["disable"] = True
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]  # untyped library

    path = snapshot_download(
        repository,
        revision=revision,
        allow_patterns=patterns,
        tqdm_class=None if progress else SilentTqdm,
    )
    return Path(path)


def _stated_bytes(snapshot: Path) -> int | None:
    """Bytes of all weights, as the index beside them says."""
    try:
        index = json.loads((snapshot / "model.safetensors.index.json").read_text())
        return int(index["metadata"]["total_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _as_our_errors(repository: str, revision: str | None) -> Iterator[None]:
    from huggingface_hub import constants, errors

    asked = f"{repository}@{revision}" if revision else repository
    url = f"{constants.ENDPOINT}/{repository}"
    advice = (
        "Check the connection (HF_ENDPOINT and HF_HUB_OFFLINE count), or load a copy by its "
        "path as mlx//absolute/dir"
    )
    with as_load_error(f"cannot fetch {asked} from the hub, and it is not cached", advice):
        try:
            yield
        except errors.GatedRepoError as error:
            raise ModelNotFoundError(
                f"{asked} is gated: accept its licence at {url}, then run `hf auth login` "
                f"or set HF_TOKEN"
            ) from error
        except errors.RevisionNotFoundError as error:
            raise ModelNotFoundError(
                f"{repository} has no revision {revision!r}; see {url}"
            ) from error
        except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
            raise ModelNotFoundError(
                f"the hub has no repository {asked}, or it is private; check the name at {url}, "
                f"and for a private one run `hf auth login` or set HF_TOKEN"
            ) from error
