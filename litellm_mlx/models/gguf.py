"""GGUF files of the llama architecture -> mlx-lm model and tokenizer.

MLX reads the container: the tensors that it can quantise (Q4_0, Q4_1, Q8_0) arrive as packed
weights with scales and biases, all others as float16 or float32, and the metadata hold the whole
tokenizer. What is left is to name the tensors as mlx-lm's llama does. Anything else is refused
with a pointer to `mlx_lm.convert`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from litellm_mlx.errors import ModelLoadError
from litellm_mlx.models.foreign import as_load_error
from litellm_mlx.models.gguf_tokenizer import CONVERT_HINT, build_tokenizer, stop_token_ids

# GGUF's name of each tensor, and mlx-lm's.
_TOP_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# Derived from the config by mlx-lm; stored only for readers that don't.
_IGNORED_TENSORS = frozenset({"rope_freqs"})
_GROUP_SIZE = 32  # of every GGUF type that MLX keeps quantised


def load_gguf(path: Path) -> tuple[Any, Any, dict[str, Any]]:
    """Model, mlx-lm TokenizerWrapper and config of a GGUF file; the weights are evaluated.

    The arrays belong to the calling thread's MLX stream: load in the thread that generates.

    Raises:
        ModelLoadError: the file is broken, or not of a kind that is read exactly.
    """
    arrays, metadata = _read(path)
    config = _config(path, arrays, metadata)
    tokenizer = _tokenizer(path, metadata)
    model = _model(path, config, _rename(path, arrays))
    return model, tokenizer, config


def load_gguf_tokenizer(path: Path) -> Any:
    """The file's tokenizer alone, in mlx-lm's wrapper; no weights are evaluated.

    Raises:
        ModelLoadError: the file is broken, or its tokenizer is not one that is read exactly.
    """
    _, metadata = _read(path)
    return _tokenizer(path, metadata)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    import mlx.core as mx

    with as_load_error(f"{path} cannot be read as GGUF", f"Fetch it again, or {CONVERT_HINT}"):
        content: Any = mx.load(str(path), format="gguf", return_metadata=True)
        arrays, metadata = content
    return arrays, {key: _plain(value) for key, value in metadata.items()}


def _plain(value: Any) -> Any:
    """A metadata value as Python's own: scalars and arrays come as mx.array."""
    return value.tolist() if hasattr(value, "tolist") else value


def _config(path: Path, arrays: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The file's metadata as the config.json of mlx-lm's llama."""
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise ModelLoadError(
            f"{path} holds a model of architecture {architecture!r}; only llama is read from "
            f"GGUF: {CONVERT_HINT}"
        )
    try:
        return _llama_config(path, arrays, metadata)
    except KeyError as error:
        raise ModelLoadError(f"{path} states no {error.args[0]}; {CONVERT_HINT}") from error


def _llama_config(
    path: Path, arrays: Mapping[str, Any], metadata: Mapping[str, Any]
) -> dict[str, Any]:
    hidden_size = metadata["llama.embedding_length"]
    num_heads = metadata["llama.attention.head_count"]
    return {
        "model_type": "llama",
        "hidden_size": hidden_size,
        "num_hidden_layers": metadata["llama.block_count"],
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_attention_heads": num_heads,
        "num_key_value_heads": metadata.get("llama.attention.head_count_kv", num_heads),
        "head_dim": metadata.get("llama.attention.key_length", hidden_size // num_heads),
        "rms_norm_eps": metadata["llama.attention.layer_norm_rms_epsilon"],
        "vocab_size": arrays["token_embd.weight"].shape[0],
        "max_position_embeddings": metadata["llama.context_length"],
        "rope_theta": metadata.get("llama.rope.freq_base", 10000.0),
        # Conversion to GGUF interleaves the rows of Q and K, which is the original RoPE layout.
        "rope_traditional": True,
        "rope_scaling": _rope_scaling(path, arrays, metadata),
        "tie_word_embeddings": "output.weight" not in arrays,
        "attention_bias": "blk.0.attn_q.bias" in arrays,
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
    }


def _rope_scaling(
    path: Path, arrays: Mapping[str, Any], metadata: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Linear scaling as stated. Others, and frequency tables, would be read inexactly."""
    kind = metadata.get("llama.rope.scaling.type", "none")
    if "rope_freqs.weight" in arrays or kind not in ("none", "linear"):
        raise ModelLoadError(f"the RoPE scaling of {path} is not read; {CONVERT_HINT}")
    if kind == "none":
        return None
    return {"type": "linear", "factor": metadata["llama.rope.scaling.factor"]}


def _rename(path: Path, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays under mlx-lm's names."""
    renamed = {}
    for name, array in arrays.items():
        stem, _, leaf = name.rpartition(".")
        if stem in _IGNORED_TENSORS:
            continue
        if stem in _TOP_NAMES:
            renamed[f"{_TOP_NAMES[stem]}.{leaf}"] = array
            continue
        _, _, rest = stem.partition(".")
        layer, _, part = rest.partition(".")
        if not stem.startswith("blk.") or part not in _LAYER_NAMES:
            raise ModelLoadError(f"{path} holds the tensor {name!r}, unknown here; {CONVERT_HINT}")
        renamed[f"model.layers.{layer}.{_LAYER_NAMES[part]}.{leaf}"] = array
    return renamed


def _model(path: Path, config: dict[str, Any], weights: Mapping[str, Any]) -> Any:
    import mlx.core as mx
    from mlx.nn.layers.quantized import quantize
    from mlx_lm.models.llama import Model, ModelArgs

    args = ModelArgs.from_dict(config)
    model = Model(args)

    def quantization(name: str, module: Any) -> dict[str, int] | bool:
        """How the file quantises this layer, told by the packed width; files mix widths."""
        if not hasattr(module, "to_quantized") or f"{name}.scales" not in weights:
            return False
        packed_width = weights[f"{name}.weight"].shape[-1]
        return {"group_size": _GROUP_SIZE, "bits": packed_width * 32 // module.weight.shape[-1]}

    quantize(model, class_predicate=quantization)
    with as_load_error(f"the tensors of {path} do not fit its metadata", "Fetch the file again"):
        model.load_weights(list(weights.items()), strict=True)
        _unify_on_gpu(model, weights)
        mx.eval(model.parameters())
    model.eval()
    return model


def _unify_on_gpu(model: Any, weights: Mapping[str, Any]) -> None:
    """Give the norms the dtype of the scales, as quantised models have on a GPU.

    GGUF keeps norms in float32, which would widen every activation. The CPU keeps them: there the
    scales are widened instead.
    """
    import mlx.core as mx

    dtypes = {array.dtype for name, array in weights.items() if name.endswith(".scales")}
    if mx.default_device().type == mx.DeviceType.gpu and len(dtypes) == 1:
        model.set_dtype(dtypes.pop())


def _tokenizer(path: Path, metadata: Mapping[str, Any]) -> Any:
    from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, TokenizerWrapper

    tokenizer = build_tokenizer(path, metadata)
    return TokenizerWrapper(
        tokenizer, BPEStreamingDetokenizer, eos_token_ids=sorted(stop_token_ids(metadata))
    )
