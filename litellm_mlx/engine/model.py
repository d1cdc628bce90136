"""What the engine needs to know of a model; the loader's `LoadedModel` has it all."""

from __future__ import annotations

from typing import Any, Protocol

from litellm_mlx.grammar.vocabulary import Vocabulary


class ServedModel(Protocol):
    """A model in memory, loaded on the thread that will run it."""

    @property
    def model(self) -> Any:
        """Called as `model(tokens (B, T), cache=caches)`; returns (B, T, V) logits."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever its layer caches, or its answers, might."""

    @property
    def free_bytes(self) -> int:
        """Memory that was left beside its weights when it was loaded."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The bytes of its tokens, and its stop tokens."""

    @property
    def message_end_ids(self) -> frozenset[int]:
        """Tokens that its chat template writes behind a message, stop tokens or not."""

    @property
    def thinking_markers(self) -> tuple[str, str] | None:
        """The texts that open and close a thinking block, where it has one."""

    @property
    def trims_leading_space(self) -> bool:
        """Its tokenizer writes a space before the first word that is not part of the text."""
