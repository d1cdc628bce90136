"""The configuration that `serve` writes for LiteLLM's proxy, and what it remembers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from litellm_mlx.errors import ModelNotFoundError
from litellm_mlx.models.names import aliases
from litellm_mlx.network import Served
from litellm_mlx.serving import running
from litellm_mlx.serving.api_errors import ApiError
from litellm_mlx.serving.config import (
    KEY_VARIABLE,
    deployments,
    ensure_key,
    named,
    proxy_config,
    write_config,
)
from litellm_mlx.serving.responses import ResponsesExchange, read_stored
from litellm_mlx.serving.stored import ResponseStore


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


@pytest.mark.parametrize("location", ["{}/model", "{}/model?adapter={}/lora", "{}/model.gguf"])
def test_litellm_is_told_no_path(tmp_path: Path, location: str) -> None:
    """And yet calls what lies there, under the name that clients use."""
    model = location.replace("{}", str(tmp_path))
    told = json.dumps(proxy_config([f"gpt-5.5={model}"]))
    assert str(tmp_path) not in told and "gpt-5.5" in told
    ((deployment, served),) = deployments([f"gpt-5.5={model}"]).items()
    assert f"mlx/{deployment}" in told and served == Served("gpt-5.5", model)


def test_a_directory_is_listed_with_its_own_context(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 777}))
    (entry,) = proxy_config([f"gpt-5.5={tmp_path}"])["model_list"]
    limits = {entry["model_info"][f"max_{kind}tokens"] for kind in ("", "input_", "output_")}
    assert limits == {777}


# --- responses that are remembered -------------------------------------------------------------


def ask(store: ResponseStore, key: str, number: int, **body: Any) -> dict[str, Any]:
    """A response of that number, as a client gets it."""
    exchange = ResponsesExchange({"model": "m", "input": f"question {number}", **body}, store, key)
    item = {"type": "message", "id": f"msg_{number}", "role": "assistant", "content": []}
    made = {"object": "response", "id": f"resp_{number}", "status": "completed", "output": [item]}
    return dict(exchange.rewritten(made))


def test_a_response_is_known_to_its_own_key_alone() -> None:
    store = ResponseStore(10, 10**6)
    ask(store, "mine", 1)
    assert read_stored(store, "mine", "GET", ["resp_1"], {})["id"] == "resp_1"
    with pytest.raises(ApiError, match="not stored") as caught:
        read_stored(store, "theirs", "GET", ["resp_1"], {})
    assert caught.value.status == 404
    with pytest.raises(ApiError, match="belongs to another key"):
        ask(store, "theirs", 2, previous_response_id="resp_1")
    with pytest.raises(ApiError, match="not stored"):
        ask(store, "theirs", 2, input=[{"type": "item_reference", "id": "msg_1"}])


def test_a_shelf_is_bounded_in_number_and_bytes_and_forgets_the_oldest() -> None:
    def kept(store: ResponseStore) -> list[int]:
        return [n for n in range(20) if store.get("k", f"resp_{n}") is not None]

    by_number, by_bytes = ResponseStore(3, 10**6), ResponseStore(100, 3000)
    for number in range(20):
        ask(by_number, "k", number)
        ask(by_bytes, "k", number)
    ask(by_number, "other", 1)
    assert kept(by_number) == [17, 18, 19]
    last = kept(by_bytes)
    assert 1 < len(last) < 15 and last == list(range(last[0], 20))
    assert sum(s.num_bytes for n in last if (s := by_bytes.get("k", f"resp_{n}"))) <= 3000
    ask(by_bytes, "k", 20, input="x" * 4000)  # it alone is too large, and pushes nothing out
    assert kept(by_bytes) == last


def test_nothing_is_kept_where_that_is_switched_off() -> None:
    store = ResponseStore(0, 10**6)
    assert ask(store, "k", 1)["store"] is False
    assert store.get("k", "resp_1") is None


# --- whose the keys are ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kept_by_the_operator",
    [
        {"prisma_client": object()},
        {"user_custom_auth": lambda: None},
        {"general_settings": {"enable_jwt_auth": True}},
        {"general_settings": {"pass_through_endpoints": [{"path": "/v1/models"}]}},
        {"master_key": None},
    ],
)
def test_keys_are_litellms_business_where_it_can_have_others(
    monkeypatch: pytest.MonkeyPatch, kept_by_the_operator: dict[str, Any]
) -> None:
    """No database can be had here, so the proxy's state is one that says it has one."""
    plain = {"prisma_client": None, "user_custom_auth": None, "general_settings": {}}
    plain["master_key"] = "sk-right"

    def refuses(headers: dict[str, str], **state: Any) -> bool:
        proxy = SimpleNamespace(**{**plain, **state})
        monkeypatch.setitem(sys.modules, "litellm.proxy.proxy_server", proxy)
        try:
            running.check_key("/v1/models", headers, {})
        except ApiError as error:
            assert error.status == 401
            return True
        return False

    wrong = {"authorization": "Bearer sk-wrong"}
    assert refuses(wrong) and refuses({})
    assert not refuses({"authorization": "Bearer sk-right"})
    assert not refuses(wrong, **kept_by_the_operator)
    assert not refuses({}, **kept_by_the_operator)
