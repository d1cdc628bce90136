"""The arguments of an embedding call -> texts, and vectors at the length that is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from litellm_mlx.errors import RequestError, UnsupportedParameterError
from litellm_mlx.translate.well_formed import well_formed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

# Accepted, and without effect on vectors.
_IGNORED = ("user", "metadata", "encoding_format")
_OWN = ("output_dimensions", "prompt_name")


class Embedder(Protocol):
    """What must be known of a model that makes vectors."""

    @property
    def dimensions(self) -> int:
        """Of each vector."""

    @property
    def prompts(self) -> Mapping[str, str]:
        """Texts that it was trained to find before others, by name."""


@dataclass(frozen=True, slots=True)
class EmbeddingCall:
    """What a caller wants.

    Attributes:
        texts: to embed, at least one.
        output_dimensions: the first so many of each vector, made length 1 again; all without it.
        prompt_name: which of the model's own prompts stands before each text.
    """

    texts: list[str]
    output_dimensions: int | None
    prompt_name: str | None

    @classmethod
    def of(cls, texts: Any, params: Mapping[str, Any], *, drops_unknown: bool) -> EmbeddingCall:
        """Check what came through LiteLLM.

        Raises:
            RequestError: no text, or token ids, which would be another tokenizer's.
            UnsupportedParameterError: a parameter that nobody honours, or its value.
        """
        for name in params:
            if name not in (*_IGNORED, *_OWN) and not drops_unknown:
                raise UnsupportedParameterError(
                    f"{name!r} is no parameter of embeddings here; {', '.join(_OWN)} are"
                )
        if params.get("encoding_format") not in (None, "float"):
            raise UnsupportedParameterError("encoding_format must be 'float', or be left out")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
            raise RequestError("`input` must be a text or a list of texts; token ids are not taken")
        dimensions = params.get("output_dimensions")
        if dimensions is not None and (type(dimensions) is not int or dimensions < 1):
            raise UnsupportedParameterError("output_dimensions must be a positive whole number")
        return cls(well_formed(texts), dimensions, params.get("prompt_name"))

    def texts_for(self, model: Embedder) -> list[str]:
        """What the model is to read.

        Raises:
            UnsupportedParameterError: its vectors are shorter, or it has no such prompt.
        """
        if self.output_dimensions is not None and self.output_dimensions > model.dimensions:
            raise UnsupportedParameterError(
                f"output_dimensions={self.output_dimensions:,} exceeds the model's "
                f"{model.dimensions:,}"
            )
        if self.prompt_name is None:
            return self.texts
        if self.prompt_name not in model.prompts:
            names = ", ".join(sorted(model.prompts)) or "none"
            raise UnsupportedParameterError(f"no prompt {self.prompt_name!r}; there are: {names}")
        return [model.prompts[self.prompt_name] + text for text in self.texts]

    def shortened(self, vectors: Vectors) -> Vectors:
        """Vectors (B, D) at the length that is wanted."""
        import numpy as np

        if self.output_dimensions is None:
            return vectors
        cut = vectors[:, : self.output_dimensions]
        length = np.linalg.norm(cut, axis=1, keepdims=True)
        shortened: Vectors = cut / np.maximum(length, np.finfo(np.float32).tiny)
        return shortened
