"""One proxy for all tests that ask one: it takes ten seconds to start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.proxy_process import Proxy, serving
from tests.tiny_model import make_tiny_adapter, make_tiny_embedder, make_tiny_model


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("proxy")
    make_tiny_model(folder / "model", config={"max_position_embeddings": 65536})
    make_tiny_model(folder / "other")
    make_tiny_model(folder / "short", config={"max_position_embeddings": 512})
    make_tiny_embedder(folder / "embedder")
    make_tiny_embedder(folder / "hidden")
    make_tiny_adapter(folder / "adapter", folder / "model")
    return folder


@pytest.fixture(scope="session")
def proxy(folder: Path) -> Iterator[Proxy]:
    limits = {"LITELLM_MLX_CLIENT_MAX_TOKENS": "20000", "LITELLM_MLX_CLIENT_MAX_N": "4"}
    limits |= {"LITELLM_MLX_CLIENT_KEEP_ALIVE_S": "0.3", "LITELLM_MLX_MAX_BATCH_SIZE": "4"}
    names = {"tiny": "model", "gpt-5.5": "short", "vectors": "embedder"}
    models = (f"{name}={folder}/{model}" for name, model in names.items())
    with serving(folder, *models, "--max-body-mb", "2", **limits) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def client(proxy: Proxy) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{proxy.url}/v1", api_key=proxy.key, max_retries=0)
