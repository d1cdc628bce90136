"""Draws texts from a guide without a model, for tests that ask what a constraint lets through."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from litellm_mlx.grammar.compiler import Index
from litellm_mlx.grammar.guide import Guide
from litellm_mlx.grammar.vocabulary import Vocabulary

SPECIAL_TOKENS = ("<pad>", "<|endoftext|>", "<|im_end|>", "<think>")
STOP_TOKEN_IDS = (1, 2)
# Each word is reached by merging its characters from the left, so its prefixes are tokens too.
WORDS = (
    *('":', '",', '"}', '{"', "}}", '["', "},", "true", "false", "null"),
    *("Ġ{", 'Ġ"', "Ġthe", "ĠĠ", "12", "99", "000", "1e999", "0.5", "e+", "e-", '":Ġ1', "<think>x"),
)
Prefer = Callable[[Sequence[int], Vocabulary], Sequence[int]]


def byte_tokenizer(*, byte_fallback: bool = False) -> Any:
    """A fast byte-level tokenizer; `byte_fallback` gives one in SentencePiece's manner."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens, merges = list(SPECIAL_TOKENS), []
    if byte_fallback:
        tokens += [f"<0x{byte:02X}>" for byte in range(256)]
        tokens += ["▁", *map(chr, range(33, 127)), "é"]
    else:
        tokens += sorted(pre_tokenizers.ByteLevel.alphabet())
        for word in WORDS:
            for end in range(2, len(word) + 1):
                if word[:end] not in tokens:
                    tokens.append(word[:end])
                    merges.append((word[: end - 1], word[end - 1]))
    ids = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges, byte_fallback=byte_fallback))
    if byte_fallback:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    # As Qwen has it, the thinking tag steers the model but is not called special.
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL_TOKENS[:3]])
    tokenizer.add_tokens([AddedToken(t, special=False) for t in SPECIAL_TOKENS[3:]])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL_TOKENS[2])


@cache
def small_vocabulary(num_padding: int = 13) -> Vocabulary:
    """The byte tokenizer's vocabulary under logits that are wider by some padding."""
    tokenizer = byte_tokenizer()
    return Vocabulary.from_tokenizer(
        tokenizer, vocab_size=len(tokenizer) + num_padding, stop_token_ids=STOP_TOKEN_IDS
    )


def allowed_tokens(guide: Guide, vocabulary: Vocabulary) -> list[int]:
    """Ids of the tokens that may come next; the row holds rubbish before it is filled."""
    row = np.full(vocabulary.num_bitmask_words, 0x5A5A5A5A, dtype=np.int32)
    guide.fill_bitmask(row)
    return [int(i) for i in np.flatnonzero(np.unpackbits(row.view(np.uint8), bitorder="little"))]


def any_token(allowed: Sequence[int], vocabulary: Vocabulary) -> Sequence[int]:
    """Prefer nothing."""
    return allowed


def tokens_of(characters: bytes) -> Prefer:
    """Prefer tokens that consist of these bytes."""

    def prefer(allowed: Sequence[int], vocabulary: Vocabulary) -> Sequence[int]:
        return [i for i in allowed if (t := vocabulary.token_bytes(i)) and not t.strip(characters)]

    return prefer


def draw(
    index: Index,
    vocabulary: Vocabulary,
    rng: random.Random,
    *,
    prefer: Prefer = any_token,
    max_tokens: int = 400,
) -> bytes | None:
    """One text of uniformly drawn allowed tokens; None where it did not end in time."""
    guide, text = index.guide(), b""
    for _ in range(max_tokens):
        if guide.is_finished:
            return text
        allowed = allowed_tokens(guide, vocabulary)
        stops = [i for i in allowed if i in vocabulary.stop_token_ids]
        assert bool(stops) == guide.is_accepting
        assert not stops or tuple(stops) == vocabulary.stop_token_ids
        assert allowed, text
        token_id = rng.choice(list(prefer(allowed, vocabulary)) or allowed)
        guide.advance(token_id)
        if token_id in vocabulary.stop_token_ids:
            return text
        text += vocabulary.token_bytes(token_id)
    return None


def accepts(
    index: Index, vocabulary: Vocabulary, text: str, token_ids: Sequence[int] | None = None
) -> bool:
    """Whether a guide lets a text through, token by token, and may end there.

    llguidance lets text that is forced come in the tokenizer's own tokens only, so those are
    the default.
    """
    guide = index.guide()
    if token_ids is None:
        token_ids = vocabulary.ll_tokenizer.tokenize_str(text)
    assert b"".join(map(vocabulary.token_bytes, token_ids)) == text.encode()
    for token_id in token_ids:
        if token_id not in allowed_tokens(guide, vocabulary):
            return False
        guide.advance(token_id)
    return guide.is_accepting


def byte_ids(vocabulary: Vocabulary, text: str) -> list[int]:
    """The text as one token per byte."""
    ids = {vocabulary.token_bytes(i): i for i in range(vocabulary.tokenizer_vocab_size)}
    return [ids[bytes([byte])] for byte in text.encode()]
