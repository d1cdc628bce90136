"""What stands before LiteLLM's own application, for every request: keys, memory, counts, errors.

Each route's own part is elsewhere (`responses`, `messages`, `counts`); here is the order of things.
LiteLLM's routes, limits and callbacks stay as they are, and what is not ours passes through.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers, QueryParams

from litellm_mlx import network
from litellm_mlx.config import EngineConfig
from litellm_mlx.serving import running
from litellm_mlx.serving.answer import Answer, send_json
from litellm_mlx.serving.api_errors import Api, ApiError, model_not_found
from litellm_mlx.serving.counts import COUNTED_ROUTES, CountExchange, as_chat
from litellm_mlx.serving.exchange import Exchange
from litellm_mlx.serving.messages import MessagesExchange
from litellm_mlx.serving.responses import ResponsesExchange, read_stored
from litellm_mlx.serving.stored import ResponseStore

_RESPONSES = "/responses"
_PREFIXES = ("/openai/v1", "/v1", "")
# Of the routes whose requests are looked into, and the API whose errors their clients read.
_ROUTES: Mapping[str, Api] = {
    "/chat/completions": "chat",
    "/completions": "chat",
    "/embeddings": "chat",
    "/messages": "anthropic",
    _RESPONSES: "responses",
    "/responses/compact": "responses",
}
_NOT_RESPONSES = ("compact", "input_tokens")  # routes below /responses that name no response


class Front:
    """The ASGI application around LiteLLM's.

    Args:
        app: LiteLLM's.
        config: what clients get.
    """

    def __init__(self, app: Any, config: EngineConfig) -> None:
        self._app = app
        self._keep_alive_s = config.client_keep_alive_s
        self._store = ResponseStore(config.client_stored_responses, config.client_stored_bytes)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["method"] == "OPTIONS":  # a browser asks without a key
            await self._app(scope, receive, send)
            return
        route = _route(scope["path"])
        api = _api(route, Headers(scope=scope))
        try:
            await self._serve(route, api, scope, receive, send)
        except ApiError as error:
            await send_json(send, error.status, error.body(api))

    async def _serve(self, route: str, api: Api, scope: Any, receive: Any, send: Any) -> None:
        headers, query = Headers(scope=scope), QueryParams(scope["query_string"])
        running.check_key(scope["path"], headers, query)
        key = _owner(headers, query)
        if route.startswith(f"{_RESPONSES}/") and self._is_ours(route):
            path = route.removeprefix(f"{_RESPONSES}/").split("/")
            found = read_stored(self._store, key, scope["method"], path, query)
            await send_json(send, 200, found)
        elif scope["method"] == "POST" and (route in _ROUTES or route in COUNTED_ROUTES):
            body = await _read(receive)
            exchange = self._exchange(route, api, body, key)
            await self._pass(exchange, body, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_ours(self, route: str) -> bool:
        """Whether LiteLLM and other providers know nothing of a stored response."""
        name = route.removeprefix(f"{_RESPONSES}/").split("/")[0]
        if name in _NOT_RESPONSES or network.has_database():
            return False
        return running.serves_only_ours()

    def _exchange(self, route: str, api: Api, body: bytes, key: str) -> Exchange:
        given = _object(body)
        if (
            given is not None
            and route in COUNTED_ROUTES
            and not running.is_served(model := given.get("model"))
        ):
            # LiteLLM would estimate the length for whatever model it is.
            raise model_not_found(str(model), running.names_for_everyone())
        if given is None or not running.our_models(given.get("model")):
            return Exchange(given or {}, api)
        if route == "/responses/compact":  # a 500 of LiteLLM's (1.110)
            raise ApiError(400, "conversations are not compacted here; send what is to be kept")
        if route == "/utils/token_counter":
            return CountExchange(route, Exchange(as_chat(given), api))
        if counted := COUNTED_ROUTES.get(route):
            return CountExchange(route, self._exchange(counted, api, body, key))
        if route == _RESPONSES and not network.has_database():
            return ResponsesExchange(given, self._store, key)
        if route == "/messages":
            return MessagesExchange(given)
        return Exchange(given, api)

    async def _pass(
        self, exchange: Exchange, body: bytes, scope: Any, receive: Any, send: Any
    ) -> None:
        """Have LiteLLM answer."""
        if exchange.changes_body:
            body = json.dumps(exchange.body).encode()
        answer = Answer(send, exchange, running.names_for_everyone, running.hidden_paths)
        early = None
        if exchange.is_stream and self._keep_alive_s > 0:
            early = asyncio.create_task(answer.begin_early(self._keep_alive_s))
        try:
            scope = _asking(scope, exchange.path, len(body))
            await self._app(scope, _again(body, receive), answer.send)
        finally:
            if early is not None:
                early.cancel()
                with suppress(asyncio.CancelledError):
                    await early


def _route(path: str) -> str:
    """The path as it is without the prefixes under which LiteLLM serves it, too."""
    prefix = next(prefix for prefix in _PREFIXES if path.startswith(f"{prefix}/") or not prefix)
    return path.removeprefix(prefix)


def _api(route: str, headers: Mapping[str, str]) -> Api:
    """Whose errors the client reads; Anthropic's SDK asks for models, too."""
    if "anthropic-version" in headers:
        return "anthropic"
    return _ROUTES.get(COUNTED_ROUTES.get(route, route), "chat")


def _owner(headers: Mapping[str, str], query: Mapping[str, str]) -> str:
    """Whose stored responses a request may see; no key itself is kept."""
    return hashlib.sha256(running.presented_key(headers, query).encode()).hexdigest()


def _object(body: bytes) -> dict[str, Any] | None:
    """The JSON object of a body; what is none is LiteLLM's to refuse."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


async def _read(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message["type"] == "http.request" and message.get("more_body", False)
    return body


def _again(body: bytes, receive: Any) -> Any:
    """A `receive` that gives a body which has been read already, and then goes on."""
    is_given = False

    async def give() -> Any:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return give


def _asking(scope: Any, path: str | None, length: int) -> Any:
    """The connection with another body; an answer that is looked into must not be compressed."""
    changed = (b"content-length", b"accept-encoding")
    headers = [(n, v) for n, v in scope["headers"] if n not in changed]
    scope = {**scope, "headers": [*headers, (b"content-length", str(length).encode())]}
    return scope if path is None else {**scope, "path": path, "raw_path": path.encode()}
