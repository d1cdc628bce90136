"""The tokenizer that a GGUF file's metadata hold -> a transformers tokenizer.

Only the pre-tokenizers that can be rebuilt exactly are taken; a near miss would change token
borders, and with them the model's answers, without anybody noticing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from litellm_mlx.errors import ModelLoadError

CONVERT_HINT = (
    "convert the original model with `mlx_lm.convert --hf-path org/repo --mlx-path DIR -q` "
    "and load that directory as mlx//absolute/dir"
)

# Values of tokenizer.ggml.token_type (gguf.constants.TokenType).
_CONTROL = 3
_USER_DEFINED = 4

# Tokens that end an assistant's turn in the chat formats of GGUF models. A file names one EOS
# only, and some name the end of a document there.
_TURN_ENDS = frozenset({"<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>", "</s>"})

_EXACT_PRE_TOKENIZERS = ("smollm", "gpt-2")


def build_tokenizer(path: Path, metadata: Mapping[str, Any]) -> Any:
    """A PreTrainedTokenizerFast with the file's vocabulary, merges and chat template.

    Raises:
        ModelLoadError: another kind of tokenizer than byte-level BPE with a known split.
    """
    kind, split = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2" or split not in _EXACT_PRE_TOKENIZERS:
        raise ModelLoadError(
            f"{path} has a tokenizer of kind {kind!r} with pre-tokenizer {split!r}; from GGUF "
            f"only gpt2 with {' or '.join(_EXACT_PRE_TOKENIZERS)} is read: {CONVERT_HINT}"
        )
    from transformers import PreTrainedTokenizerFast

    tokens = metadata["tokenizer.ggml.tokens"]
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # untyped constructor
        tokenizer_object=_byte_level_bpe(tokens, metadata, split),
        clean_up_tokenization_spaces=False,
        model_max_length=metadata["llama.context_length"],
        chat_template=metadata.get("tokenizer.chat_template"),
        **_named_tokens(tokens, metadata),
    )


def _byte_level_bpe(tokens: list[str], metadata: Mapping[str, Any], split: str) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if split == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    else:
        tokenizer.pre_tokenizer = byte_level
    tokenizer.decoder = decoders.ByteLevel()
    types = metadata.get("tokenizer.ggml.token_type", [])
    added = [(token, kind) for token, kind in zip(tokens, types, strict=False)]
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in added
            if kind == _CONTROL
        ]
    )
    tokenizer.add_tokens(
        [AddedToken(token, normalized=False) for token, kind in added if kind == _USER_DEFINED]
    )
    return tokenizer


def _named_tokens(tokens: list[str], metadata: Mapping[str, Any]) -> dict[str, str]:
    names = {
        "bos_token": "tokenizer.ggml.bos_token_id",
        "eos_token": "tokenizer.ggml.eos_token_id",
        "unk_token": "tokenizer.ggml.unknown_token_id",
        "pad_token": "tokenizer.ggml.padding_token_id",
    }
    return {name: tokens[metadata[key]] for name, key in names.items() if key in metadata}


def stop_token_ids(metadata: Mapping[str, Any]) -> set[int]:
    """Every token that ends a completion: named EOS ids, and control tokens that end a turn."""
    keys = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
    named = {metadata[key] for key in keys if key in metadata}
    tokens = metadata["tokenizer.ggml.tokens"]
    types = metadata.get("tokenizer.ggml.token_type", [])
    ends = {
        index
        for index, (token, kind) in enumerate(zip(tokens, types, strict=False))
        if kind == _CONTROL and token in _TURN_ENDS
    }
    return named | ends
