"""How many tokens a request has, exactly: LiteLLM's own route is asked, and answers nothing else.

LiteLLM would estimate it with another tokenizer and no template, 22 % low for Claude Code's prompt.
The request takes the whole way of a real one, so that the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litellm_mlx.serving.exchange import Exchange

# Of a count's route, and the route of what is counted.
COUNTED_ROUTES: Mapping[str, str] = {
    "/messages/count_tokens": "/messages",
    "/responses/input_tokens": "/responses",
    "/utils/token_counter": "/chat/completions",
}


class CountExchange(Exchange):
    """A question for the length of a prompt.

    Args:
        route: of the count.
        asked: what is counted, as its own route would have it.
    """

    def __init__(self, route: str, asked: Exchange) -> None:
        body = {**asked.body, "count_only": True}
        for name in ("stream", "stream_options"):
            body.pop(name, None)
        if route == "/messages/count_tokens":
            body.setdefault("max_tokens", 1)
        super().__init__(body, asked.api)
        self._route = route

    @property
    def changes_body(self) -> bool:
        """It asks for nothing else."""
        return True

    @property
    def path(self) -> str:
        """Where LiteLLM is asked."""
        return f"/v1{COUNTED_ROUTES[self._route]}"

    @property
    def rewrites(self) -> bool:
        """The usage is all that is wanted."""
        return True

    def rewritten(self, value: dict[str, Any]) -> Mapping[str, Any]:
        """The count, in the shape of its own route."""
        usage = value["usage"]
        if self._route == "/messages/count_tokens":
            return {"input_tokens": usage["input_tokens"]}
        if self._route == "/responses/input_tokens":
            return {"object": "response.input_tokens", "input_tokens": usage["input_tokens"]}
        return {
            "total_tokens": usage["prompt_tokens"],
            "request_model": self.body["model"],
            "model_used": self.body["model"],
            "tokenizer_type": "mlx",
        }


def as_chat(body: dict[str, Any]) -> dict[str, Any]:
    """A question to LiteLLM's `/utils/token_counter` as the chat that it is about."""
    messages = body.get("messages") or [{"role": "user", "content": body.get("prompt") or ""}]
    if system := body.get("system"):
        messages = [{"role": "system", "content": system}, *messages]
    chat = {"model": body["model"], "messages": messages, "tools": body.get("tools")}
    return {name: value for name, value in chat.items() if value is not None}
