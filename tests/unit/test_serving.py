"""The configuration that `serve` writes for LiteLLM's proxy."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from litellm_mlx.errors import ModelNotFoundError
from litellm_mlx.models.names import aliases
from litellm_mlx.serving.config import KEY_VARIABLE, ensure_key, named, proxy_config, write_config


@pytest.mark.parametrize(
    ("given", "name", "model"),
    [
        ("qwen3-4b", "qwen3-4b", "qwen3-4b"),
        ("mlx/qwen3-4b", "qwen3-4b", "qwen3-4b"),
        ("gpt=mlx/qwen3-4b", "gpt", "qwen3-4b"),
        ("mine=/models/a", "mine", "/models/a"),
        ("/models/a?adapter=/b", "/models/a?adapter=/b", "/models/a?adapter=/b"),
        ("mine=/models/a?adapter=/b", "mine", "/models/a?adapter=/b"),
    ],
)
def test_a_model_may_get_another_name(given: str, name: str, model: str) -> None:
    assert named(given) == (name, model)


def test_the_configuration_lists_the_models_and_no_wildcard(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    write_config(proxy_config(["qwen3-4b", "mine=org/repo"]), path)
    config = yaml.safe_load(path.read_text())
    listed = {e["model_name"]: e["litellm_params"]["model"] for e in config["model_list"]}
    assert listed == {"qwen3-4b": "mlx/qwen3-4b", "mine": "mlx/org/repo"}
    info = config["model_list"][0]["model_info"]
    assert info["max_input_tokens"] == aliases()["qwen3-4b"].context_tokens
    assert config["general_settings"]["cancel_on_disconnect"] is True
    assert "sk-" not in path.read_text()
    with pytest.raises(ModelNotFoundError):
        proxy_config(["no-such-model"])


def test_a_key_is_made_up_where_there_is_none_and_kept_where_there_is() -> None:
    environ: dict[str, str] = {}
    key = ensure_key(environ)
    assert key is not None and len(key) > 40 and environ[KEY_VARIABLE] == key
    assert ensure_key(environ) is None and environ[KEY_VARIABLE] == key
