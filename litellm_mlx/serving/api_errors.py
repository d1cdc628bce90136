"""Errors as the APIs have them: OpenAI's object, Anthropic's, and either inside a stream.

Owns their shapes, and which of LiteLLM's errors have a name in them that it does not give.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Api = Literal["chat", "responses", "anthropic"]

_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}
_UNKNOWN_MODEL = re.compile(r"Invalid model name passed in model=(.*?)\. Call `/v1/models`")
_CONTEXT = "ContextWindowExceededError"
_NOT_FOUND = "litellm.NotFoundError"


class ApiError(Exception):
    """What a client is told instead of an answer.

    Args:
        status: of HTTP.
        message: for people.
        code: OpenAI's name of the error, where it has one.
        param: the parameter that it is about.
        given: further fields, as LiteLLM gave them.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        given: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self._given = dict(given or {})

    def body(self, api: Api) -> dict[str, Any]:
        """The JSON object of the whole answer."""
        if api == "anthropic":
            own = {"type": self._type(api), "message": self.message}
            rest = {k: v for k, v in self._given.items() if k not in ("code", "param")}
            return {"type": "error", "error": {**rest, **own}}
        return {"error": self._openai()}

    def event(self, api: Api) -> bytes:
        """The same as the last event of a stream whose status has been sent already."""
        if api == "chat":
            return _event(self.body(api)) + b"data: [DONE]\n\n"
        if api == "anthropic":
            return b"event: error\n" + _event(self.body(api))
        details = {"code": self.code, "message": self.message, "param": self.param}
        return _event({"type": "error", **details, "error": self._openai()})

    def _openai(self) -> dict[str, Any]:
        return {
            **self._given,
            "message": self.message,
            "type": self._type("chat"),
            "param": self.param,
            "code": self.code,
        }

    def _type(self, api: Api) -> str:
        is_anthropic = api == "anthropic"
        if is_anthropic and self.status in _ANTHROPIC_TYPES:
            return _ANTHROPIC_TYPES[self.status]
        if self.status >= 500:
            return "api_error" if is_anthropic else "server_error"
        return "rate_limit_error" if self.status == 429 else "invalid_request_error"


def model_not_found(model: str, names: Sequence[str] | None) -> ApiError:
    """No model of that name is served.

    Args:
        model: as the client named it.
        names: those that there are; `None` where the client may not know all of them.
    """
    there_are = "" if names is None else f"; there are {', '.join(names)}"
    return ApiError(
        404, f"the model {model!r} does not exist{there_are}", code="model_not_found", param="model"
    )


def from_litellm(status: int, body: bytes, api: Api, names: Sequence[str] | None) -> ApiError:
    """An error that LiteLLM answered with, with the status and names that the API has for it."""
    message, given = _read(body)
    if unknown := _UNKNOWN_MODEL.search(message):
        return model_not_found(unknown[1], names)
    if _CONTEXT in message:
        where = "input" if api == "responses" else "messages"
        return ApiError(status, message, code="context_length_exceeded", param=where)
    if status == 404 and _NOT_FOUND in message:
        return ApiError(status, message, code="model_not_found", param="model")
    code, param = given.get("code"), given.get("param")
    # LiteLLM repeats the status there.
    is_code = code is not None and str(code) != str(status)
    return ApiError(status, message, code=str(code) if is_code else None, param=param, given=given)


def _read(body: bytes) -> tuple[str, Mapping[str, Any]]:
    """The message of an error's body, and its other fields."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", "replace") or "no answer", {}
    if isinstance(error, dict):
        return str(error.get("message")), error
    return str(error), {}


def _event(value: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()
