"""Responses that may be gone on from, kept in memory for the keys that asked for them.

A shelf per key, bounded in number and bytes; what was used longest ago goes first. Nothing is
written to disk, and a restart forgets everything.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """One answer of the Responses API.

    Attributes:
        response: the object that the client got.
        items: the conversation up to its end, in the API's items.
        num_input: how many of them came before the answer.
        num_bytes: of all that, as JSON. Turns of one conversation share items in memory, and each
            counts them, so the bound is kept with room to spare.
    """

    response: Mapping[str, Any]
    items: tuple[Item, ...]
    num_input: int
    num_bytes: int

    @classmethod
    def of(cls, response: Mapping[str, Any], inputs: tuple[Item, ...]) -> StoredResponse:
        """An answer and what was asked."""
        items = (*inputs, *response["output"])
        num_bytes = len(json.dumps([response, items]))
        return cls(response, items, len(inputs), num_bytes)

    @property
    def inputs(self) -> tuple[Item, ...]:
        """What was asked, the turns before it included."""
        return self.items[: self.num_input]


class ResponseStore:
    """The shelves of all keys. One event loop uses it.

    Args:
        max_responses: of one key; 0 keeps none.
        max_bytes: of one key.
    """

    def __init__(self, max_responses: int, max_bytes: int) -> None:
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._shelves: dict[str, OrderedDict[str, StoredResponse]] = {}

    @property
    def is_on(self) -> bool:
        """It keeps anything at all."""
        return self._max_responses > 0 and self._max_bytes > 0

    def put(self, key: str, stored: StoredResponse) -> None:
        """Keep a response, at the cost of those that were used longest ago."""
        if not self.is_on or stored.num_bytes > self._max_bytes:
            return
        shelf = self._shelves.setdefault(key, OrderedDict())
        shelf[str(stored.response["id"])] = stored
        while len(shelf) > self._max_responses or self._num_bytes(shelf) > self._max_bytes:
            shelf.popitem(last=False)

    def get(self, key: str, response_id: str) -> StoredResponse | None:
        """The response of that id, if this key got it and it is still there."""
        shelf = self._shelves.get(key, OrderedDict())
        if response_id not in shelf:
            return None
        shelf.move_to_end(response_id)
        return shelf[response_id]

    def item(self, key: str, item_id: str) -> Item | None:
        """An item of any of a key's conversations, the newest first."""
        for stored in reversed(self._shelves.get(key, OrderedDict()).values()):
            for item in stored.items:
                if item.get("id") == item_id:
                    return item
        return None

    def delete(self, key: str, response_id: str) -> bool:
        """Forget a response; whether it was there."""
        return self._shelves.get(key, OrderedDict()).pop(response_id, None) is not None

    @staticmethod
    def _num_bytes(shelf: Mapping[str, StoredResponse]) -> int:
        return sum(stored.num_bytes for stored in shelf.values())
