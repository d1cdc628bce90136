"""Makes a model directory that mlx-lm can load, small enough for every test.

Two random layers and a byte-level BPE tokenizer of 315 tokens: the 256 bytes, some merges that
JSON text is full of, and ChatML's special tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Each word is reached by merging its characters from the left, so prefixes are tokens too.
MERGED_WORDS = (
    *("true", "false", "null", "name", "type", "value", "items", "label"),
    *('{"', '":', '",', '"}', "[{", "}]", "},", '["', '"]', "\\n", "\\u"),
    *("Ġ{", 'Ġ"', "Ġthe", "Ġand", "ĠParis", "ĠĠ", "12", "20", "00"),
)
# Options of `make_tiny_model` for a model whose first layer keeps a window of its keys.
ROTATING: dict[str, Any] = {
    "model_type": "gemma3_text",
    "config": {"sliding_window": 48, "sliding_window_pattern": 2, "query_pre_attn_scalar": 16},
}
VOCAB_SIZE = 315  # no multiple of 32, so the last word of a token bitmask is partly used


def make_tiny_model(
    path: Path,
    *,
    seed: int = 0,
    model_type: str = "llama",
    vocab_size: int | None = None,
    hidden_size: int = 64,
    num_layers: int = 2,
    quantize_bits: int | None = None,
    generation_config: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    chat_template: str | None = CHAT_TEMPLATE,
    added_tokens: Sequence[str] = (),
) -> Path:
    """Write a float32 random-weight model and its tokenizer into `path`, and return `path`.

    Args:
        path: directory to fill; made when missing.
        seed: of the weights.
        model_type: any mlx-lm architecture that takes llama's arguments ("qwen2", "qwen3", ...).
        vocab_size: width of the logits; more than the tokenizer has means padding.
        hidden_size: a multiple of 64, so that it can be quantised.
        num_layers: layers of the model.
        quantize_bits: quantise the weights to this width, group 64.
        generation_config: content of generation_config.json; absent without it.
        config: further or other keys of config.json.
        chat_template: None leaves the tokenizer without one.
        added_tokens: markup such as "<think>", each one token, as Qwen has it: added, not special.
    """
    path.mkdir(parents=True, exist_ok=True)
    tokenizer_vocab_size = write_tokenizer(path, chat_template, added_tokens)
    full_config = _config(model_type, vocab_size or tokenizer_vocab_size, hidden_size, num_layers)
    full_config.update(config or {})
    _write_weights(path, full_config, seed, quantize_bits)
    if generation_config is not None:
        (path / "generation_config.json").write_text(json.dumps(generation_config))
    return path


def make_tiny_adapter(path: Path, model_dir: str | Path, *, seed: int = 1) -> Path:
    """A LoRA adapter as `mlx_lm.lora` writes it, with weights that change the logits."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model

    path.mkdir()
    model, _ = load_model(Path(model_dir))
    parameters = {"rank": 4, "scale": 2.0, "dropout": 0.0}
    model.freeze()
    linear_to_lora_layers(model, 2, parameters)
    keys = iter(mx.random.split(mx.random.key(seed), 256))
    leaves: Any = tree_flatten(model.trainable_parameters())
    weights = {name: 0.3 * mx.random.normal(a.shape, key=next(keys)) for name, a in leaves}
    mx.save_safetensors(str(path / "adapters.safetensors"), weights)
    config = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": parameters}
    (path / "adapter_config.json").write_text(json.dumps(config))
    return path


def write_tokenizer(
    path: Path, chat_template: str | None = CHAT_TEMPLATE, added_tokens: Sequence[str] = ()
) -> int:
    """Write tokenizer.json and tokenizer_config.json; returns the number of tokens."""
    tokenizer = _byte_level_bpe()
    tokenizer.add_tokens([_plain(token) for token in added_tokens])
    tokenizer.save(str(path / "tokenizer.json"))
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
    }
    if chat_template is not None:
        tokenizer_config["chat_template"] = chat_template
    (path / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=1))
    return int(tokenizer.get_vocab_size(with_added_tokens=True))


def _plain(token: str) -> Any:
    from tokenizers import AddedToken

    return AddedToken(token, special=False, normalized=False)


def _byte_level_bpe() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, merges = list(SPECIAL_TOKENS), []
    tokens += sorted(pre_tokenizers.ByteLevel.alphabet())
    for word in MERGED_WORDS:
        for end in range(2, len(word) + 1):
            if word[:end] not in tokens:
                tokens.append(word[:end])
                merges.append((word[: end - 1], word[end - 1]))
    ids = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    return tokenizer


def _config(model_type: str, vocab_size: int, hidden_size: int, num_layers: int) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "architectures": [f"{model_type.capitalize()}ForCausalLM"],
        "hidden_size": hidden_size,
        "num_hidden_layers": num_layers,
        "intermediate_size": 2 * hidden_size,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": hidden_size // 4,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "vocab_size": vocab_size,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def _write_weights(path: Path, config: dict[str, Any], seed: int, bits: int | None) -> None:
    import mlx.core as mx
    from mlx.utils import tree_map
    from mlx_lm.utils import _get_classes, quantize_model, save_config, save_model

    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))
    keys = iter(mx.random.split(mx.random.key(seed), 512))

    def draw(array: mx.array) -> mx.array:
        """Norms stay 1; matrices are drawn wide enough that greedy choices are clear."""
        return array if array.ndim == 1 else 0.15 * mx.random.normal(array.shape, key=next(keys))

    model.update(tree_map(draw, model.parameters()))
    if bits is not None:
        model, config = quantize_model(model, config, group_size=64, bits=bits)
    save_model(path, model)
    save_config(config, path / "config.json")


def make_tiny_embedder(
    path: Path, *, seed: int = 0, model_type: str = "bert", pooling: str | None = "mean_tokens"
) -> Path:
    """Write a random-weight embedding model of 64 dimensions and 128 tokens into `path`.

    Args:
        path: directory to fill; made when missing.
        seed: of the weights.
        model_type: an embedding architecture of mlx-vlm that takes llama's arguments or BERT's.
        pooling: as sentence-transformers' files name it, behind `pooling_mode_`; `None` leaves
            those files out.
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_vlm.embedding_loader import EMBEDDING_MODEL_REMAPPING
    from mlx_vlm.utils import get_model_and_args

    path.mkdir(parents=True, exist_ok=True)
    config = _config(model_type, write_tokenizer(path, None), 64, 2)
    config |= {"max_position_embeddings": 128, "type_vocab_size": 2, "layer_norm_eps": 1e-12}
    (path / "config.json").write_text(json.dumps(config))
    known_as = EMBEDDING_MODEL_REMAPPING.get(model_type, model_type)
    module, _ = get_model_and_args({**config, "model_type": known_as})
    mx.random.seed(seed)
    model = module.Model(module.ModelConfig.from_dict({**config, "model_type": known_as}))
    leaves: Any = tree_flatten(model.parameters())
    weights = {name: mx.random.normal(array.shape) * 0.3 for name, array in leaves}
    mx.save_safetensors(str(path / "model.safetensors"), weights)
    if pooling is not None:
        kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
        modules = [
            {"idx": index, "name": str(index), "path": folder, "type": f"models.{kind}"}
            for index, (folder, kind) in enumerate(kinds.items())
        ]
        (path / "modules.json").write_text(json.dumps(modules))
        (path / "1_Pooling").mkdir()
        settings = {"word_embedding_dimension": 64, f"pooling_mode_{pooling}": True}
        (path / "1_Pooling" / "config.json").write_text(json.dumps(settings))
        prompts = {"prompts": {"query": "query: "}}
        (path / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return path
