"""The hub path, against a loopback server in the hub's shape.

huggingface_hub reads HF_ENDPOINT and HF_HOME once, at import, so each state of them is a
process.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.loopback_hub import GATED, LoopbackHub, serve
from tests.programs import output_of
from tests.tiny_model import make_tiny_model

LOAD = """
import dataclasses, json, sys
from litellm_mlx.config import EngineConfig
from litellm_mlx.errors import LiteLLMMLXError
from litellm_mlx.models import loader
from litellm_mlx.models.names import parse_model_name

available_bytes, *names = sys.argv[1:]
if int(available_bytes):
    small = dataclasses.replace(loader.hardware_profile(), available_bytes=int(available_bytes))
    loader.hardware_profile = lambda: small
for name in names:
    try:
        loaded = loader.load_model(parse_model_name(name), EngineConfig())
        print(json.dumps(["loaded", loaded.context_tokens, loaded.fingerprint]))
    except LiteLLMMLXError as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> LoopbackHub:
    root = tmp_path_factory.mktemp("hub")
    old = {"max_position_embeddings": 1024}
    return LoopbackHub(
        {
            "org/tiny": {
                "main": make_tiny_model(root / "main"),
                "v1": make_tiny_model(root / "v1", seed=1, config=old),
            }
        }
    )


def load(endpoint: str, home: Path, *names: str, available_bytes: int = 0) -> list[list[str]]:
    """What a fresh process gets for each name, with `home` as the hub's cache."""
    environ = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home)}
    environ |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    shown = output_of("-c", LOAD, str(available_bytes), *names, environ=environ)
    return [json.loads(line) for line in shown.splitlines()]


@dataclass(frozen=True, slots=True)
class Loads:
    """What a fresh cache got for each name while the hub was up, and a second process after it."""

    online: dict[str, list[str]]
    offline: dict[str, list[str]]


@pytest.fixture(scope="module")
def loads(hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Loads:
    home = tmp_path_factory.mktemp("home")
    by_commit = f"org/tiny@{hub.commit('org/tiny', 'v1')}"
    names = ("org/tiny", "org/tiny@v1", by_commit, "org/none", "org/tiny@v9", GATED)
    with serve(hub) as endpoint:
        online = load(endpoint, home, *names)
    offline = load(endpoint, home, "org/tiny", "org/other")
    return Loads(
        dict(zip([*names[:2], "by commit", *names[3:]], online, strict=True)),
        dict(zip(["org/tiny", "org/other"], offline, strict=True)),
    )


def test_a_repository_loads_at_each_revision(loads: Loads) -> None:
    newest, tagged = loads.online["org/tiny"], loads.online["org/tiny@v1"]
    assert (newest[:2], tagged[:2]) == (["loaded", 2048], ["loaded", 1024])
    assert tagged == loads.online["by commit"]
    assert newest[2] != tagged[2]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("org/none", "no repository org/none"),
        ("org/tiny@v9", "no revision 'v9'"),
        (GATED, "accept its licence"),
    ],
)
def test_what_is_not_there_is_told_apart(loads: Loads, name: str, says: str) -> None:
    kind, message = loads.online[name]
    assert kind == "ModelNotFoundError"
    assert says in message


def test_a_cached_model_needs_no_hub(loads: Loads) -> None:
    assert loads.offline["org/tiny"] == loads.online["org/tiny"]
    kind, message = loads.offline["org/other"]
    assert kind == "ModelLoadError"
    assert "path" in message


def test_too_large_a_model_is_refused_before_it_is_fetched(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    hub.fetched.clear()
    with serve(hub) as endpoint:
        ((kind, message),) = load(endpoint, tmp_path, "org/tiny", available_bytes=1 << 20)
    assert kind == "ModelLoadError"
    assert "GiB" in message
    assert "model.safetensors" not in hub.fetched
