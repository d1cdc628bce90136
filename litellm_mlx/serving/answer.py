"""What goes back to a client: LiteLLM's answer with our words in it, and signs of life before it.

A stream's headers would go out with its first token, which a long prompt keeps waiting for minutes;
clients and what stands between give up on that (Node's fetch after 300 s). So where nothing has
come for a while, a stream begins with comments, which every reader of events passes over. Until
then an error has a status of its own; afterwards it is the stream's last event.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from litellm_mlx.serving.api_errors import from_litellm
from litellm_mlx.serving.exchange import Exchange

Message = Mapping[str, Any]

_COMMENT = b": the prompt is being read\n\n"
_EVENT_END = b"\n\n"
_STREAM = b"text/event-stream"
# They name what stands behind a model's name: a path of this machine.
_OWN_HEADERS = (b"x-litellm-model-name", b"x-litellm-model-api-base")


class Answer:
    """The ASGI `send` of one request.

    Args:
        send: the server's.
        exchange: whose answer it is.
        names: gives the models that an error may speak of.
        hidden: gives the texts that no error may hold, and what stands for them.
    """

    def __init__(
        self,
        send: Any,
        exchange: Exchange,
        names: Callable[[], Sequence[str] | None],
        hidden: Callable[[], Mapping[str, str]],
    ) -> None:
        self._send = send
        self._exchange = exchange
        self._names = names
        self._hidden = hidden
        self._lock = asyncio.Lock()
        self._start: Message | None = None  # LiteLLM's
        self._is_begun = False  # headers are out
        self._kept = b""  # of a body that is read to its end first, or of an event

    async def begin_early(self, after_s: float) -> None:
        """Send headers and comments until LiteLLM answers; runs beside it."""
        while self._start is None:
            await asyncio.sleep(after_s)
            async with self._lock:
                if self._start is not None:
                    return
                if not self._is_begun:
                    await self._begin(200, [(b"content-type", _STREAM)])
                await self._send(_body(_COMMENT, more=True))

    async def send(self, message: Message) -> None:
        """Take the next message of LiteLLM's."""
        async with self._lock:
            if message["type"] == "http.response.start":
                self._start = message
            elif message["type"] == "http.response.body":
                await self._take(message.get("body", b""), more=message.get("more_body", False))
            else:
                await self._send(message)

    async def _take(self, body: bytes, *, more: bool) -> None:
        assert self._start is not None, "a body comes after its headers"
        status, content_type = self._start["status"], _header(self._start, b"content-type")
        if status >= 400:
            await self._whole(body, more)
        elif not self._exchange.rewrites:
            await self._pass(body, more)
        elif content_type.startswith(_STREAM):
            await self._pass(self._events(body, more), more)
        else:
            await self._whole(body, more)

    async def _whole(self, body: bytes, more: bool) -> None:
        """Keep a body until its end, then send what is made of it."""
        assert self._start is not None
        self._kept += body
        if more:
            return
        status = self._start["status"]
        if status < 400:
            await self._pass(self._rewritten(self._kept), more=False, is_whole=True)
            return
        error = from_litellm(status, self._shown(self._kept), self._exchange.api, self._names())
        if self._is_begun:
            await self._send(_body(error.event(self._exchange.api), more=False))
            return
        headers = [
            (name, value)
            for name, value in _headers(self._start)
            if name.lower() not in (b"content-length", b"content-type")
        ]
        await send_json(self._send, error.status, error.body(self._exchange.api), headers)

    async def _pass(self, body: bytes, more: bool, *, is_whole: bool = False) -> None:
        assert self._start is not None
        if not self._is_begun:
            headers = _headers(self._start)
            if is_whole:
                headers = [(n, v) for n, v in headers if n.lower() != b"content-length"]
                headers.append((b"content-length", str(len(body)).encode()))
            await self._begin(self._start["status"], headers)
        await self._send(_body(body, more=more))

    async def _begin(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._is_begun = True
        await self._send(
            {"type": "http.response.start", "status": status, "headers": list(headers)}
        )

    def _events(self, body: bytes, more: bool) -> bytes:
        """The events that have come whole; the beginning of another one is kept."""
        *events, self._kept = (self._kept + body).split(_EVENT_END)
        whole = b"".join(self._event(event) + _EVENT_END for event in events)
        if more:
            return whole
        rest, self._kept = self._kept, b""
        return whole + rest

    def _event(self, event: bytes) -> bytes:
        lines = event.split(b"\n")
        return b"\n".join(
            b"data: " + self._rewritten(line[6:]) if line.startswith(b"data: {") else line
            for line in lines
        )

    def _rewritten(self, text: bytes) -> bytes:
        try:
            value = json.loads(text)
        except ValueError:
            return text
        if not isinstance(value, dict):
            return text
        return json.dumps(self._exchange.rewritten(value)).encode()

    def _shown(self, body: bytes) -> bytes:
        for text, name in self._hidden().items():
            body = body.replace(text.encode(), name.encode())
        return body


async def send_json(
    send: Any, status: int, value: Mapping[str, Any], headers: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """A whole answer of our own."""
    body = json.dumps(value).encode()
    own = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *own]})
    await send(_body(body, more=False))


def _headers(start: Message) -> list[tuple[bytes, bytes]]:
    return [(n, v) for n, v in start["headers"] if n.lower() not in _OWN_HEADERS]


def _header(start: Message, name: bytes) -> bytes:
    return next((value for key, value in start["headers"] if key.lower() == name), b"")


def _body(body: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}
