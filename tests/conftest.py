"""What all tests share: a clean environment, a tuned BLAS and one tiny model."""

from __future__ import annotations

import os

# Before anything imports litellm: no test may reach for the network.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["HF_HUB_OFFLINE"] = "1"

from pathlib import Path

import pytest

from litellm_mlx.models.blas import choose_blas

# Before any test module imports mlx.core: afterwards it is too late for a tuned BLAS, and the
# tests of the real model take ten times as long.
choose_blas()


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random-weight llama with a byte-level tokenizer of 315 tokens."""
    from tests.tiny_model import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny(tiny_model_dir: Path) -> str:
    """LiteLLM's name of the tiny model; its engine is shared by the session's tests."""
    import litellm_mlx  # noqa: F401  # registers mlx/

    return f"mlx/{tiny_model_dir}"
