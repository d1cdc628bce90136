"""Anthropic's Messages API: what clients send for their cloud alone, and what they want counted."""

from __future__ import annotations

from typing import Any

from litellm_mlx.serving.api_errors import ApiError
from litellm_mlx.serving.exchange import Exchange

# Claude Code begins its system prompt with it (2.1.197). It ends in a hash of the first message, so
# that no two conversations would begin alike.
_BILLING = "x-anthropic-billing-header:"


class MessagesExchange(Exchange):
    """A request for a message, without what is for a cloud's books.

    Raises:
        ApiError: there is no message, which LiteLLM answers with a 500 (1.110).
    """

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(_without_billing(body), "anthropic")
        if not body.get("messages"):
            raise ApiError(400, "messages: at least one message is required", param="messages")

    @property
    def changes_body(self) -> bool:
        """A part of the system prompt may be gone."""
        return True


def _without_billing(body: dict[str, Any]) -> dict[str, Any]:
    system = body.get("system")
    if isinstance(system, str) and system.startswith(_BILLING):
        return {**body, "system": system.partition("\n")[2]}
    if isinstance(system, list):
        return {**body, "system": [block for block in system if not _is_billing(block)]}
    return body


def _is_billing(block: Any) -> bool:
    text = block.get("text") if isinstance(block, dict) else None
    return isinstance(text, str) and text.startswith(_BILLING) and "\n" not in text.strip()
