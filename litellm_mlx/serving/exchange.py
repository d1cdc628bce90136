"""One request to one of LiteLLM's routes: what is put into its body, and out of its answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litellm_mlx.serving.api_errors import Api


class Exchange:
    """A request as LiteLLM is to get it. This one changes nothing of the answer.

    Args:
        body: the request's JSON object.
        api: whose errors the client reads.
    """

    def __init__(self, body: dict[str, Any], api: Api) -> None:
        self.body = body
        self.api = api

    @property
    def changes_body(self) -> bool:
        """The body is another than the client's; else LiteLLM gets the client's own bytes."""
        return False

    @property
    def path(self) -> str | None:
        """The route of LiteLLM's that answers; that of the request unless it is said."""
        return None

    @property
    def is_stream(self) -> bool:
        """The client wants events."""
        return self.body.get("stream") is True

    @property
    def rewrites(self) -> bool:
        """The answer's JSON goes through `rewritten`."""
        return False

    def rewritten(self, value: dict[str, Any]) -> Mapping[str, Any]:
        """An object of the answer, whole or one event's, as the client is to get it."""
        return value
