"""Loading a model directory: facts, float32 expansion, adapters, refusals."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from litellm_mlx.config import EngineConfig
from litellm_mlx.errors import LiteLLMMLXError, ModelLoadError, ModelNotFoundError
from litellm_mlx.models import loader
from litellm_mlx.models.hardware import hardware_profile
from litellm_mlx.models.loader import LoadedModel
from litellm_mlx.models.names import parse_model_name
from litellm_mlx.types import SamplingDefaults
from tests.tiny_model import VOCAB_SIZE, make_tiny_adapter, make_tiny_model

on_cpu = pytest.mark.skipif(
    mx.default_device().type != mx.DeviceType.cpu, reason="weights are expanded on the CPU only"
)


def load(name: str | Path, **config: Any) -> LoadedModel:
    return loader.load_model(parse_model_name(str(name)), EngineConfig(**config), progress=False)


def logits_of(loaded: LoadedModel) -> mx.array:
    tokens = mx.array([loaded.tokenizer.encode('{"name": "Paris"}')])
    return loaded.model(tokens).astype(mx.float32)


def relative_error(got: mx.array, expected: mx.array) -> float:
    return float(mx.linalg.norm(got - expected) / mx.linalg.norm(expected))


def test_a_directory_gives_all_the_engine_needs(tmp_path: Path) -> None:
    path = make_tiny_model(
        tmp_path / "m",
        vocab_size=352,
        generation_config={"eos_token_id": [2, 0], "temperature": 0.7, "top_p": 0.8},
    )
    loaded = load(path)
    assert (loaded.context_tokens, loaded.vocab_size) == (2048, 352)
    assert loaded.vocabulary.tokenizer_vocab_size == VOCAB_SIZE
    assert loaded.stop_token_ids == {0, 2}
    assert loaded.sampling == SamplingDefaults(temperature=0.7, top_p=0.8)
    assert loaded.dtype == "float32"
    assert loaded.num_parameters > 10_000
    assert loaded.thinking_markers is None
    assert not loaded.trims_leading_space
    assert loaded.tokenizer.has_chat_template


def test_a_model_is_usable_in_the_thread_that_loaded_it(tiny_model_dir: Path) -> None:
    shapes: list[tuple[int, ...]] = []

    def run() -> None:
        shapes.append(logits_of(load(tiny_model_dir)).shape)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert shapes[0][-1] == VOCAB_SIZE


@on_cpu
@pytest.mark.parametrize("bits", [4, 8])
def test_expanding_keeps_the_answers_of_the_quantised_model(tmp_path: Path, bits: int) -> None:
    path = make_tiny_model(tmp_path / "m", quantize_bits=bits)
    kept, expanded = load(path, expand_weights=False), load(path)
    assert (kept.dtype, expanded.dtype) == (f"{bits}-bit quantised", "float32")
    assert kept.num_parameters == expanded.num_parameters
    assert kept.fingerprint != expanded.fingerprint
    assert relative_error(logits_of(expanded), logits_of(kept)) < 1e-4


@on_cpu
def test_half_precision_weights_are_widened(tmp_path: Path) -> None:
    path = make_tiny_model(tmp_path / "m")
    halve(path)
    assert load(path, expand_weights=False).dtype == "bfloat16"
    assert load(path).dtype == "float32"


def halve(path: Path) -> None:
    file = str(path / "model.safetensors")
    arrays: Any = mx.load(file)
    mx.save_safetensors(file, {k: v.astype(mx.bfloat16) for k, v in arrays.items()})


@on_cpu
def test_what_does_not_fit_in_float32_stays_quantised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = make_tiny_model(tmp_path / "m", quantize_bits=4)
    pretend_available(monkeypatch, (256 << 20) + 300_000)
    assert load(path).dtype == "4-bit quantised"
    assert "generation is slow" in caplog.text


def pretend_available(monkeypatch: pytest.MonkeyPatch, available_bytes: int) -> None:
    profile = replace(hardware_profile(), available_bytes=available_bytes)
    monkeypatch.setattr(loader, "hardware_profile", lambda: profile)


def test_a_model_that_cannot_fit_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_tiny_model(tmp_path / "m")
    (path / "config.json").write_text("broken, but never read")
    pretend_available(monkeypatch, 100 << 20)
    with pytest.raises(ModelLoadError, match=r"needs 0\.25 GiB .* 0\.10 GiB of"):
        load(path)


def test_the_fingerprint_tells_models_apart(tmp_path: Path) -> None:
    one, other = make_tiny_model(tmp_path / "a"), make_tiny_model(tmp_path / "b", seed=1)
    assert load(one).fingerprint == load(one).fingerprint
    assert load(one).fingerprint != load(other).fingerprint


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3"])
def test_other_architectures_load(tmp_path: Path, model_type: str) -> None:
    assert load(make_tiny_model(tmp_path / "m", model_type=model_type)).vocab_size == VOCAB_SIZE


@pytest.mark.parametrize("bits", [None, 4])
def test_an_adapter_changes_the_answers(tmp_path: Path, bits: int | None) -> None:
    path = make_tiny_model(tmp_path / "m", quantize_bits=bits)
    adapter = make_tiny_adapter(tmp_path / "my adapter", path)
    plain, adapted = load(path), load(f"{path}?adapter={adapter}")
    assert relative_error(logits_of(adapted), logits_of(plain)) > 0.01
    assert plain.fingerprint != adapted.fingerprint


def test_an_adapter_that_is_not_there_is_not_found(tmp_path: Path, tiny_model_dir: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no adapter at"):
        load(f"{tiny_model_dir}?adapter={tmp_path}/none")


def test_an_adapter_of_another_model_is_refused(tmp_path: Path, tiny_model_dir: Path) -> None:
    wide = make_tiny_model(tmp_path / "wide", hidden_size=128)
    adapter = make_tiny_adapter(tmp_path / "adapter", wide)
    with pytest.raises(ModelLoadError, match="does not fit this model"):
        load(f"{tiny_model_dir}?adapter={adapter}")


def test_a_broken_adapter_is_refused(tmp_path: Path, tiny_model_dir: Path) -> None:
    adapter = make_tiny_adapter(tmp_path / "adapter", tiny_model_dir)
    (adapter / "adapters.safetensors").write_bytes(b"xx")
    with pytest.raises(ModelLoadError, match="does not fit this model"):
        load(f"{tiny_model_dir}?adapter={adapter}")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_with_weights_that_are_not_finite_is_refused(
    tmp_path: Path, tiny_model_dir: Path, value: float
) -> None:
    adapter = make_tiny_adapter(tmp_path / "adapter", tiny_model_dir)
    weights = dict(mx.load(str(adapter / "adapters.safetensors")))
    name = sorted(weights)[1]
    weights[name] = mx.where(mx.arange(weights[name].size) == 3, value, weights[name].flatten())
    mx.save_safetensors(str(adapter / "adapters.safetensors"), weights)
    with pytest.raises(ModelLoadError, match=r"not finite .*its training diverged"):
        load(f"{tiny_model_dir}?adapter={adapter}")


def test_a_module_that_ends_the_process_is_a_load_error(tmp_path: Path) -> None:
    """mlx-lm's OLMo calls sys.exit where a package of its own is missing."""
    path = make_tiny_model(tmp_path / "olmo")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "model_type": "olmo"}))
    with pytest.raises(ModelLoadError, match=r"cannot load .*SystemExit"):
        load(path)


def test_missing_paths_are_not_found(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("none", "empty", "none.gguf"):
        with pytest.raises(ModelNotFoundError, match=str(tmp_path)):
            load(tmp_path / name)


def cut(name: str, keep: int) -> Any:
    def change(path: Path) -> None:
        (path / name).write_bytes((path / name).read_bytes()[:keep])

    return change


def change_config(**values: Any) -> Any:
    def change(path: Path) -> None:
        file = path / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return change


@pytest.mark.parametrize(
    "change",
    [
        cut("model.safetensors", 5000),
        cut("model.safetensors", 0),
        cut("config.json", 20),
        cut("tokenizer.json", 400),
        change_config(model_type="no_such_architecture"),
        change_config(hidden_size=128),
        change_config(num_hidden_layers=3),
        change_config(model_file="own.py"),
    ],
)
def test_broken_directories_are_load_errors_that_name_the_model(
    tmp_path: Path, change: Any
) -> None:
    path = make_tiny_model(tmp_path / "m")
    change(path)
    with pytest.raises(LiteLLMMLXError) as caught:
        load(path)
    assert type(caught.value) is ModelLoadError
    assert str(path) in str(caught.value)
    assert caught.value.__cause__ is not None
