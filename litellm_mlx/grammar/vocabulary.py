"""A model's vocabulary as the grammar engines see it: token bytes, stop tokens, a fingerprint.

Owns the border to the tokenizer. What a grammar makes of the bytes is `compiler` and `guide`.
"""

from __future__ import annotations

import hashlib
import re
import struct
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from litellm_mlx.errors import ModelLoadError

if TYPE_CHECKING:
    import numpy as np
    from llguidance import LLTokenizer

T = TypeVar("T")

# Added tokens such as Qwen's "<think>" and Mistral's "[INST]" steer the model even where the
# tokenizer does not call them special; the same text can be spelled with ordinary tokens.
CONTROL_TOKEN = re.compile(r"<\|?[^<>\s]+\|?>|\[/?[A-Z][A-Z_]+\]")


# The engine keeps the mask of this regex ready and looks only at the other tokens one by one. More
# such slices gain nothing: a mask of maskbench takes 17 us with this one and with the engine's
# four, 86 us without. A slice costs 50 us of every compile if it holds other scripts than Latin,
# and 10 us if it does not (2-core EPYC, 2026-11-21).
_ASCII_SLICE = r"[ !#-\[\]-~]{1,30}"
_SLICE = r'[^"\\\x00-\x1F\x7F]{1,30}'
_MAX_OTHER_TOKENS = 0.05  # of a vocabulary for which the cheaper slice is as fast


class Vocabulary:
    """Token bytes and stop tokens of one model; immutable, shared by threads.

    Two vocabularies with one `fingerprint` give every constraint the same index.
    """

    def __init__(
        self,
        ll_tokenizer: LLTokenizer,
        *,
        vocab_size: int,
        tokenizer_vocab_size: int,
        stop_token_ids: tuple[int, ...],
        added_tokens: dict[int, str],
    ) -> None:
        """Read all token bytes once. Use `from_tokenizer`."""
        self._vocab_size = vocab_size
        self._tokenizer_vocab_size = tokenizer_vocab_size
        self._stop_token_ids = stop_token_ids
        readable = range(min(vocab_size, tokenizer_vocab_size))
        stops = frozenset(stop_token_ids)
        self._token_bytes = tuple(
            b"" if token_id in stops else ll_tokenizer.decode_bytes([token_id])
            for token_id in readable
        )
        self._ll_tokenizer = ll_tokenizer.with_slices([_slice_for(self._token_bytes)])
        special = {i for i in readable if ll_tokenizer.is_special_token(i)}
        control = {i for i in readable if CONTROL_TOKEN.fullmatch(added_tokens.get(i, ""))}
        self._control_token_ids = tuple(sorted((special | control) - stops))
        self._steering_token_ids = tuple(sorted(control - special - stops))
        self._fingerprint = self._digest()
        self._derived: dict[str, Any] = {}
        self._derived_lock = threading.Lock()

    @classmethod
    def from_tokenizer(
        cls, tokenizer: object, *, vocab_size: int, stop_token_ids: Collection[int]
    ) -> Vocabulary:
        """Read a fast Hugging Face tokenizer, or mlx-lm's wrapper of one.

        Args:
            tokenizer: a `PreTrainedTokenizerFast` or a `TokenizerWrapper` around one.
            vocab_size: width of the model's logits, padding included.
            stop_token_ids: every EOS id of the model; ids that its logits lack are left out.

        Raises:
            ModelLoadError: the tokenizer is slow, unreadable, or there is no stop token.

        Cost: about 0.3 s for 50,000 tokens, so once per model.
        """
        import llguidance.hf

        fast = _unwrap(tokenizer)
        stops = tuple(sorted({int(i) for i in stop_token_ids if 0 <= i < vocab_size}))
        if not stops:
            raise ModelLoadError(
                f"the model names no stop token among its {vocab_size} tokens; "
                "set eos_token_id in its generation_config.json"
            )
        tokenizer_vocab_size = len(fast)
        try:
            ll_tokenizer = llguidance.hf.from_tokenizer(
                fast, n_vocab=max(vocab_size, tokenizer_vocab_size), eos_token=list(stops)
            )
        except Exception as error:  # the engine raises whatever its tokenizer parser met
            raise ModelLoadError(
                f"the grammar engine cannot read this model's tokenizer: {error}"
            ) from error
        added = {int(i): str(token) for i, token in fast.added_tokens_decoder.items()}
        return cls(
            ll_tokenizer,
            vocab_size=vocab_size,
            tokenizer_vocab_size=tokenizer_vocab_size,
            stop_token_ids=stops,
            added_tokens=added,
        )

    @property
    def vocab_size(self) -> int:
        """Width of the logits, padding included."""
        return self._vocab_size

    @property
    def tokenizer_vocab_size(self) -> int:
        """Number of tokens that the tokenizer knows."""
        return self._tokenizer_vocab_size

    @property
    def num_bitmask_words(self) -> int:
        """Number of int32 words in one row of a token bitmask."""
        return (self._vocab_size + 31) // 32

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Every token that ends a completion, sorted."""
        return self._stop_token_ids

    @property
    def control_token_ids(self) -> tuple[int, ...]:
        """Special tokens, and added ones that look like markup; stop tokens left out."""
        return self._control_token_ids

    @property
    def steering_token_ids(self) -> tuple[int, ...]:
        """The control tokens that the grammar engine takes for ordinary text."""
        return self._steering_token_ids

    @property
    def fingerprint(self) -> str:
        """Digest of everything that an index depends on."""
        return self._fingerprint

    @property
    def ll_tokenizer(self) -> LLTokenizer:
        """The engine's own form of this vocabulary; may be wider than `vocab_size`."""
        return self._ll_tokenizer

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes that the token adds to the text; empty for stop tokens and padding."""
        if 0 <= token_id < len(self._token_bytes):
            return self._token_bytes[token_id]
        return b""

    def bitmask(self, token_ids: Iterable[int]) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Token bitmask with just these tokens set; shape (num_bitmask_words,), int32."""
        import numpy as np

        bits = np.zeros(self.num_bitmask_words * 32, dtype=np.uint8)
        bits[[i for i in token_ids if 0 <= i < self._vocab_size]] = 1
        return np.packbits(bits, bitorder="little").view(np.int32)

    def derived(self, name: str, make: Callable[[Vocabulary], T]) -> T:
        """Return `make(self)`, computed once per `name` and shared by all guides."""
        with self._derived_lock:
            if name not in self._derived:
                self._derived[name] = make(self)
            made: T = self._derived[name]
            return made

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for numbers in (self._stop_token_ids, self._control_token_ids):
            digest.update(struct.pack(f"<{len(numbers) + 2}q", self._vocab_size, -1, *numbers))
        lengths = [len(token) for token in self._token_bytes]
        digest.update(struct.pack(f"<{len(lengths)}I", *lengths))
        digest.update(b"".join(self._token_bytes))
        return digest.hexdigest()


@cache
def byte_vocabulary() -> Vocabulary:
    """A vocabulary of single bytes, for questions about grammars that need no model."""
    from llguidance import LLTokenizer

    tokenizer = LLTokenizer("byte")
    return Vocabulary(
        tokenizer,
        vocab_size=tokenizer.vocab_size,
        tokenizer_vocab_size=tokenizer.vocab_size,
        stop_token_ids=(tokenizer.eos_token,),
        added_tokens={},
    )


def _slice_for(tokens: Collection[bytes]) -> str:
    num_other = sum(not token.isascii() for token in tokens)
    return _ASCII_SLICE if num_other <= _MAX_OTHER_TOKENS * len(tokens) else _SLICE


def marker_token_ids(vocabulary: Vocabulary) -> Mapping[str, int]:
    """The added token of each markup text; a text that two tokens have is left out."""
    return vocabulary.derived("marker_token_ids", _marker_token_ids)


def _marker_token_ids(vocabulary: Vocabulary) -> Mapping[str, int]:
    found: dict[str, list[int]] = {}
    for token_id in vocabulary.control_token_ids:
        text = vocabulary.token_bytes(token_id).decode("utf-8", "replace")
        found.setdefault(text, []).append(token_id)
    return {text: ids[0] for text, ids in found.items() if text and len(ids) == 1}


def _unwrap(tokenizer: object) -> Any:  # transformers' tokenizers are untyped here
    """Give the fast tokenizer inside mlx-lm's wrapper, or the one passed."""
    from transformers import PreTrainedTokenizerFast

    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        tokenizer = getattr(tokenizer, "_tokenizer", tokenizer)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelLoadError(
            f"constraints need a fast tokenizer (tokenizer.json), not {type(tokenizer).__name__}; "
            "convert the model's tokenizer with transformers"
        )
    return tokenizer
