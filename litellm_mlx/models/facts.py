"""What a model's own files say of it: context length, logits width, stop tokens, sampling."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from litellm_mlx.errors import LiteLLMMLXError, ModelLoadError
from litellm_mlx.models.gguf_header import gguf_number
from litellm_mlx.models.names import ModelSpec
from litellm_mlx.types import SamplingDefaults

logger = logging.getLogger("litellm_mlx")

# gpt-oss thinks in one channel and answers in another.
_HARMONY = (
    "<|channel|>analysis<|message|>",
    "<|end|><|start|>assistant<|channel|>final<|message|>",
)
_FALLBACK_CONTEXT_TOKENS = 4096  # small enough for any model of the last years
# What architectures call it: most, GPT-NeoX and DBRX kin, GPT-2 kin, ChatGLM.
_CONTEXT_KEYS = ("max_position_embeddings", "max_seq_len", "n_positions", "n_ctx", "seq_length")


def read_json(root: Path, stem: str) -> dict[str, Any]:
    """The object in `<stem>.json` of directory `root`; empty where there is no such file."""
    path = root / f"{stem}.json"
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelLoadError(f"{path} is not JSON: {error}; fetch the model again") from error
    return value if isinstance(value, dict) else {}


def context_tokens(config: Mapping[str, Any], spec: ModelSpec) -> int:
    """Tokens that prompt and completion may have together.

    The tokenizer's model_max_length is not asked: it is often a placeholder such as 1e30.
    """
    if (stated := _stated(config) or spec.context_tokens) is not None:
        return stated
    logger.warning(
        "the config of %s states no context length; %s tokens are assumed",
        spec.name,
        _FALLBACK_CONTEXT_TOKENS,
    )
    return _FALLBACK_CONTEXT_TOKENS


def stated_context(spec: ModelSpec) -> int | None:
    """The same of a model that is not loaded, from what is on this disk; `None` if unknown."""
    with suppress(LiteLLMMLXError, OSError):
        return _stated(_config_on_disk(spec)) or spec.context_tokens
    return spec.context_tokens


def _config_on_disk(spec: ModelSpec) -> Mapping[str, Any]:
    if spec.source == "directory":
        return read_json(Path(spec.location), "config")
    if spec.source == "gguf":
        return {_CONTEXT_KEYS[0]: gguf_number(Path(spec.location), ".context_length")}
    if spec.source == "hub":
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(spec.location, "config.json", revision=spec.revision)
        return read_json(Path(path).parent, "config") if isinstance(path, str) else {}
    return {}


def _stated(config: Mapping[str, Any]) -> int | None:
    for part in (config, config.get("text_config") or {}):
        for key in _CONTEXT_KEYS:
            if isinstance(stated := part.get(key), int) and stated > 0:
                return _scaled(stated, part)
    return None


def _scaled(stated: int, config: Mapping[str, Any]) -> int:
    """`stated`, stretched where RoPE scaling is applied on top of the original length.

    YaRN and llama3 state the stretched length already, or stretch only by the caller's wish.
    """
    scaling = config.get("rope_scaling") or {}
    kind = scaling.get("type") or scaling.get("rope_type")
    if kind in ("linear", "dynamic") and (factor := scaling.get("factor")):
        return int(stated * factor)
    return stated


def vocab_size(model: Any, config: Mapping[str, Any]) -> int:
    """Width of the logits, found by pushing one token through the model.

    Configs of multi-modal models nest it, padded heads exceed it; the output is what counts.
    """
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache

    logits = model(mx.array([[0]]), cache=make_prompt_cache(model))
    mx.eval(logits)
    width = int(logits.shape[-1])
    stated = config.get("vocab_size", width)
    if stated != width:
        logger.debug("logits are %s wide, though the config states %s", width, stated)
    return width


def stop_token_ids(
    tokenizer: Any, config: Mapping[str, Any], generation_config: Mapping[str, Any]
) -> frozenset[int]:
    """Every EOS that the tokenizer, the config or the generation config names."""
    ids = {int(token_id) for token_id in tokenizer.eos_token_ids}
    for source in (config, config.get("text_config") or {}, generation_config):
        ids.update(_as_ids(source.get("eos_token_id")))
    return frozenset(ids)


def _as_ids(value: Any) -> Iterable[int]:
    if value is None:
        return ()
    return (int(token_id) for token_id in (value if isinstance(value, list) else [value]))


def sampling_defaults(generation_config: Mapping[str, Any]) -> SamplingDefaults:
    """What generation_config.json says of sampling; `do_sample: false` means greedy."""
    if generation_config.get("do_sample") is False:
        return SamplingDefaults(
            temperature=0.0, repetition_penalty=_number(generation_config, "repetition_penalty")
        )
    top_k = _number(generation_config, "top_k")
    return SamplingDefaults(
        temperature=_number(generation_config, "temperature"),
        top_p=_number(generation_config, "top_p"),
        top_k=None if top_k is None else int(top_k),
        min_p=_number(generation_config, "min_p"),
        repetition_penalty=_number(generation_config, "repetition_penalty"),
    )


def _number(values: Mapping[str, Any], key: str) -> float | None:
    value = values.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return None


def thinking_markers(tokenizer: Any) -> tuple[str, str] | None:
    """The texts that open and close a thinking block, where the vocabulary has such tokens."""
    if tokenizer.has_thinking:
        return tokenizer.think_start, tokenizer.think_end
    if all(token in tokenizer.get_vocab() for token in ("<|channel|>", "<|message|>", "<|end|>")):
        return _HARMONY  # which mlx-lm has no markers for
    return None


def answer_opening(tokenizer: Any) -> str:
    """What the model itself writes before an answer without thinking; mostly nothing."""
    return "<|channel|>final<|message|>" if thinking_markers(tokenizer) == _HARMONY else ""


def thinks(tokenizer: Any) -> bool:
    """Whether the model writes thinking blocks: the markers may be in the vocabulary for kin."""
    markers = thinking_markers(tokenizer)
    if markers is None:
        return False
    template = str(tokenizer.chat_template or "")
    return markers == _HARMONY or markers[0] in template or "enable_thinking" in template


def trims_leading_space(tokenizer: Any) -> bool:
    """Whether the tokenizer (SentencePiece) puts a space before the first word of any text."""
    from mlx_lm.tokenizer_utils import SPMStreamingDetokenizer

    detokenizer = tokenizer.detokenizer
    return isinstance(detokenizer, SPMStreamingDetokenizer) and bool(detokenizer.trim_space)


# Conversations whose messages are looked for in what a template makes of them. Some take no system
# message.
_PROBES = tuple(
    [{"role": role, "content": f"content{place}"} for place, role in enumerate(roles)]
    for roles in (("system", "user", "assistant", "user"), ("user", "assistant", "user"))
)


def message_end_ids(tokenizer: Any) -> frozenset[int]:
    """Tokens of markup that the chat template writes behind a message's text.

    That is the marker which ends the message, or, where there is none, the one that opens the next.
    """
    markup = sorted(_markup(tokenizer).items(), key=lambda item: -len(item[0]))
    ids: set[int] = set()
    for messages in _PROBES:
        try:
            text = str(tokenizer.apply_chat_template(messages, tokenize=False))
        except Exception:  # whatever a template's code raises where it refuses a conversation
            continue
        for message in messages:
            _, _, rest = text.partition(message["content"])
            following = (index for mark, index in markup if rest.lstrip().startswith(mark))
            ids.update(index for index in (next(following, None),) if index is not None)
    return frozenset(ids)


def _markup(tokenizer: Any) -> dict[str, int]:
    """The added tokens of a tokenizer, special or not, that are no white space."""
    added: dict[str, int] = tokenizer.get_added_vocab()
    return {text: index for text, index in added.items() if text.strip()}
