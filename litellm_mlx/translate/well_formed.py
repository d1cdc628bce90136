"""Half characters in a request: text that a client cut in the middle of an emoji.

JSON can hold one half of a UTF-16 pair, which is no character and which no tokenizer takes. In
what a model reads it becomes U+FFFD, as in every decoder; in what holds the answer (schemas,
names of tools, stop texts) a request is refused that has it, since the answer could not have it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from litellm_mlx.errors import RequestError

_SURROGATE = re.compile("[\ud800-\udfff]")
# Texts that a model reads and nothing holds the answer to.
_TELLING = ("description", "title")


def well_formed(value: Any) -> Any:
    """A value with U+FFFD for each half character in it; two halves that fit are joined."""
    if isinstance(value, str):
        if _SURROGATE.search(value) is None:
            return value
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {well_formed(key): well_formed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [well_formed(item) for item in value]
    return value


def checked_params(value: Any, name: str = "the request") -> Any:
    """Parameters without half characters.

    Raises:
        RequestError: one stands where it would have to be in the answer, or a name that it breaks.
    """
    if isinstance(value, str):
        whole = well_formed(value)
        if whole != value and "\ufffd" in whole:
            raise RequestError(
                f"{name} holds half a character ({value!a}: a lone UTF-16 surrogate), which no "
                "answer can have; send whole characters"
            )
        return whole
    if isinstance(value, Mapping):
        return {
            checked_params(key, f"a key in {name}"): well_formed(item)
            if key == "chat_template_kwargs" or (key in _TELLING and isinstance(item, str))
            else checked_params(item, str(key))
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [checked_params(item, name) for item in value]
    return value
