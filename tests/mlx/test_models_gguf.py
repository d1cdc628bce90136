"""GGUF files: a small one is written here, by MLX, and read back as the model it came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from litellm_mlx.config import EngineConfig
from litellm_mlx.errors import ModelLoadError
from litellm_mlx.models.facts import stated_context
from litellm_mlx.models.gguf import _LAYER_NAMES, _TOP_NAMES
from litellm_mlx.models.loader import LoadedModel, load_model
from litellm_mlx.models.names import parse_model_name
from tests.tiny_model import CHAT_TEMPLATE, VOCAB_SIZE, make_tiny_model

TEXT = '<|im_start|>user\n{"name": 42, "the café": true} 🙂<|im_end|>\n'


def load(path: Path) -> LoadedModel:
    return load_model(parse_model_name(str(path)), EngineConfig(), progress=False)


def write_gguf(
    path: Path, model_dir: Path, *, dtype: mx.Dtype = mx.float32, **changes: Any
) -> Path:
    """The model in `model_dir` as a GGUF file; `changes` to the metadata, None removes.

    The names' dots are written as double underscores in `changes`.
    """
    arrays: Any = mx.load(str(model_dir / "model.safetensors"))
    metadata = gguf_metadata(model_dir)
    for name, value in changes.items():
        metadata[name.replace("__", ".")] = value
    mx.save_gguf(
        str(path),
        {gguf_name(name): array.astype(dtype) for name, array in arrays.items()},
        {name: value for name, value in metadata.items() if value is not None},
    )
    return path


def gguf_name(name: str) -> str:
    stem, _, leaf = name.rpartition(".")
    for ours, theirs in _TOP_NAMES.items():
        if stem == theirs:
            return f"{ours}.{leaf}"
    _, _, layer, rest = stem.split(".", 3)
    part = next(ours for ours, theirs in _LAYER_NAMES.items() if theirs == rest)
    return f"blk.{layer}.{part}.{leaf}"


def gguf_metadata(model_dir: Path) -> dict[str, Any]:
    config = json.loads((model_dir / "config.json").read_text())
    tokenizer = json.loads((model_dir / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    return {
        "general.architecture": "llama",
        "llama.embedding_length": mx.array(config["hidden_size"], mx.uint32),
        "llama.block_count": mx.array(config["num_hidden_layers"], mx.uint32),
        "llama.feed_forward_length": mx.array(config["intermediate_size"], mx.uint32),
        "llama.attention.head_count": mx.array(config["num_attention_heads"], mx.uint32),
        "llama.attention.head_count_kv": mx.array(config["num_key_value_heads"], mx.uint32),
        "llama.attention.layer_norm_rms_epsilon": mx.array(config["rms_norm_eps"]),
        "llama.context_length": mx.array(2048, mx.uint32),
        "llama.rope.freq_base": mx.array(config["rope_theta"]),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in tokenizer["model"]["merges"]],
        "tokenizer.ggml.token_type": mx.array([3] * 3 + [1] * (len(tokens) - 3), mx.int32),
        "tokenizer.ggml.bos_token_id": mx.array(1, mx.uint32),
        "tokenizer.ggml.eos_token_id": mx.array(2, mx.uint32),
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In GGUF's own RoPE layout, so that its arrays can be copied as they are."""
    path = tmp_path_factory.mktemp("gguf") / "m"
    return make_tiny_model(path, config={"rope_traditional": True})


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16])
def test_it_answers_as_the_directory_it_was_made_of(
    tmp_path: Path, model_dir: Path, dtype: mx.Dtype
) -> None:
    file = load(write_gguf(tmp_path / "m.gguf", model_dir, dtype=dtype))
    directory = load(model_dir)
    tokens = mx.array([directory.tokenizer.encode(TEXT)])
    got, expected = file.model(tokens), directory.model(tokens)
    tolerance = 1e-5 if dtype == mx.float32 else 1e-2
    assert float(mx.linalg.norm(got - expected) / mx.linalg.norm(expected)) < tolerance
    assert (file.context_tokens, file.vocab_size) == (2048, VOCAB_SIZE)
    assert file.stop_token_ids == {0, 2}


def test_its_context_is_read_without_its_tensors(tmp_path: Path, model_dir: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", model_dir)
    assert stated_context(parse_model_name(str(path))) == load(path).context_tokens == 2048
    whole = path.read_bytes()
    for broken in (b"not a GGUF file", whole[:200], b""):
        path.write_bytes(broken)
        assert stated_context(parse_model_name(str(path))) is None


def test_its_tokenizer_is_the_directorys(tmp_path: Path, model_dir: Path) -> None:
    ours = load(write_gguf(tmp_path / "m.gguf", model_dir)).tokenizer
    theirs = load(model_dir).tokenizer
    ids = theirs.encode(TEXT)
    assert ours.encode(TEXT) == ids
    assert ours.decode(ids) == theirs.decode(ids) == TEXT
    assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(
        ids, skip_special_tokens=True
    )
    messages = [{"role": "user", "content": "hi"}]
    assert ours.apply_chat_template(messages) == theirs.apply_chat_template(messages)


def test_smollm_splits_digits(tmp_path: Path, model_dir: Path) -> None:
    """The tokens "12", "20" and "00" exist, but no digit may join another."""
    path = write_gguf(tmp_path / "m.gguf", model_dir, tokenizer__ggml__pre="smollm")
    assert len(load(path).tokenizer.encode("122000")) == 6
    assert len(load(model_dir).tokenizer.encode("122000")) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"general__architecture": "qwen3"},
        {"tokenizer__ggml__model": "llama"},
        {"tokenizer__ggml__pre": "llama-bpe"},
        {"llama__context_length": None},
        {"llama__rope__scaling__type": "yarn"},
    ],
)
def test_other_kinds_are_refused_with_the_way_out(
    tmp_path: Path, model_dir: Path, changes: dict[str, Any]
) -> None:
    path = write_gguf(tmp_path / "m.gguf", model_dir, **changes)
    with pytest.raises(ModelLoadError, match=r"mlx_lm\.convert") as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_file_that_lacks_a_tensor_is_refused(tmp_path: Path, model_dir: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", model_dir, llama__block_count=mx.array(3, mx.uint32))
    with pytest.raises(ModelLoadError, match="do not fit its metadata"):
        load(path)


@pytest.mark.parametrize("keep", [0, 3, 100, 9000, -1000])
def test_a_truncated_file_is_refused(tmp_path: Path, model_dir: Path, keep: int) -> None:
    path = write_gguf(tmp_path / "m.gguf", model_dir)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelLoadError, match="cannot be read as GGUF"):
        load(path)
