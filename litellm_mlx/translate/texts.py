"""The texts of a chat message, whether its content is a string or a list of parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def texts_of(message: Mapping[str, Any]) -> list[str]:
    """The text of a message, or the texts of its parts; other parts have none."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = (part.get("text") for part in parts if isinstance(part, Mapping))
    return [text for text in texts if isinstance(text, str)]
