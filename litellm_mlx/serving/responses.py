"""OpenAI's Responses API with a memory: what LiteLLM keeps in its database alone is kept here.

A follow-up is sent on with its whole history, so that LiteLLM and the model see one conversation.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from litellm_mlx.serving.api_errors import ApiError
from litellm_mlx.serving.exchange import Exchange
from litellm_mlx.serving.stored import Item, ResponseStore, StoredResponse
from litellm_mlx.translate.responses_request import is_reference

_PAGE, _MAX_PAGE = 20, 100  # OpenAI's
_ENDED_WELL = ("completed", "incomplete")


class ResponsesExchange(Exchange):
    """A request for a response: its history put in, its answer kept.

    Args:
        body: the request's JSON object.
        store: of the responses so far.
        key: whose they are.

    Raises:
        ApiError: it names what is not there.
    """

    def __init__(self, body: dict[str, Any], store: ResponseStore, key: str) -> None:
        super().__init__(body, "responses")
        self._store = store
        self._key = key
        self._model = body.get("model")
        self._previous_id = body.get("previous_response_id")
        self._is_kept = store.is_on and body.get("store") is not False
        self._inputs = (*self._history(), *(self._known(item) for item in _as_items(body)))
        self.body = {**body, "input": list(self._inputs)}
        self.body.pop("previous_response_id", None)

    @property
    def changes_body(self) -> bool:
        """Its history is put in."""
        return True

    @property
    def rewrites(self) -> bool:
        """The model's own name, the response before it and whether it is kept are put in."""
        return True

    def rewritten(self, value: dict[str, Any]) -> Mapping[str, Any]:
        """The response with what LiteLLM did not know of; the last one is kept."""
        is_event = isinstance(value.get("response"), dict)
        response = value["response"] if is_event else value
        if response.get("object") != "response":
            return value
        response["model"] = self._model
        response["previous_response_id"] = self._previous_id
        response["store"] = self._is_kept
        if self._is_kept and response.get("status") in _ENDED_WELL:
            inputs = tuple(_with_id(item) for item in self._inputs)
            self._store.put(self._key, StoredResponse.of(response, inputs))
        return value

    def _history(self) -> tuple[Item, ...]:
        if self._previous_id is None:
            return ()
        stored = self._store.get(self._key, str(self._previous_id))
        if stored is None:
            raise ApiError(
                400,
                f"previous response {self._previous_id!r} is not stored: it was sent with "
                "store=false, is too old, or belongs to another key; send the history as input",
                code="previous_response_not_found",
                param="previous_response_id",
            )
        return stored.items

    def _known(self, item: Any) -> Any:
        """The item that a reference means; any other as it is."""
        if not is_reference(item):
            return item
        found = self._store.item(self._key, str(item["id"]))
        if found is None:
            raise ApiError(
                404, f"item {item['id']!r} is not stored; send the item itself", param="input"
            )
        return found


def read_stored(
    store: ResponseStore, key: str, method: str, path: Sequence[str], query: Mapping[str, str]
) -> Mapping[str, Any]:
    """Answer a request about a response that is there already.

    Args:
        store: of the responses.
        key: whose they are.
        method: of HTTP.
        path: its parts after `responses/`.
        query: its parameters.

    Raises:
        ApiError: there is none of that id, or that cannot be done with it.
    """
    response_id, *rest = path
    stored = store.get(key, response_id)
    if stored is None:
        raise ApiError(404, f"response {response_id!r} is not stored", param="response_id")
    match (method, rest):
        case ("GET", []):
            if query.get("stream") == "true":
                raise ApiError(400, "a stored response is not streamed again", param="stream")
            return stored.response
        case ("DELETE", []):
            store.delete(key, response_id)
            return {"id": response_id, "object": "response", "deleted": True}
        case ("GET", ["input_items"]):
            return _page(stored.inputs, query)
        case ("POST", ["cancel"]):
            raise ApiError(400, "only responses in the background can be cancelled")
    raise ApiError(404, f"a response has no {'/'.join(rest)}")


def _as_items(body: Mapping[str, Any]) -> Sequence[Any]:
    """The request's input as a list of items.

    Raises:
        ApiError: it is neither a list nor a text.
    """
    given = body.get("input")
    if isinstance(given, str):
        content = [{"type": "input_text", "text": given}]
        return [{"type": "message", "role": "user", "content": content}]
    if not isinstance(given, list):
        raise ApiError(400, "input must be a text or a list of items", param="input")
    return given


def _with_id(item: Any) -> Item:
    if not isinstance(item, Mapping):
        return {"type": "unknown", "value": item}
    return item if item.get("id") else {**item, "id": f"msg_{uuid.uuid4().hex}"}


def _page(items: Sequence[Item], query: Mapping[str, str]) -> Mapping[str, Any]:
    """A part of a list, the newest first unless asked otherwise, as OpenAI's API gives it."""
    ordered = list(items) if query.get("order") == "asc" else list(reversed(items))
    if after := query.get("after"):
        ids = [item["id"] for item in ordered]
        if after not in ids:
            raise ApiError(400, f"no item {after!r} is among them", param="after")
        ordered = ordered[ids.index(after) + 1 :]
    limit = query.get("limit", str(_PAGE))
    if not limit.isdecimal() or not 1 <= int(limit) <= _MAX_PAGE:
        raise ApiError(400, f"limit={limit} is not a number from 1 to {_MAX_PAGE}", param="limit")
    page = ordered[: int(limit)]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(ordered) > len(page),
    }
