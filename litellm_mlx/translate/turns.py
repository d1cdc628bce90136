"""The same chat with other roles, for templates that are strict about whose turn it is.

Every reshaping keeps all text, and in its order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Message = dict[str, Any]


def turn_shapes(chat: Sequence[Message]) -> Iterator[list[Message]]:
    """The chat as it is, then in the shapes that stricter templates show; none of them twice."""
    later = _later_system_as_user(chat)
    no_system = [_as_user(m) if m["role"] == "system" else m for m in chat]
    tried: list[list[Message]] = []
    for shape in (list(chat), later, in_turn(later), in_turn(no_system)):
        if shape not in tried:
            tried.append(shape)
            yield shape


def in_turn(chat: Sequence[Message]) -> list[Message]:
    """Users and assistants in turn, the user first.

    An empty message stands where the other side said nothing: before an assistant's greeting, and
    between a call's result and what the user says next.
    """
    found: list[Message] = []
    for message in join_neighbours(chat):
        role, before = message["role"], found[-1]["role"] if found else "system"
        if (before, role) == ("system", "assistant"):
            found.append({"role": "user", "content": ""})
        if (before, role) == ("tool", "user"):
            found.append({"role": "assistant", "content": ""})
        found.append(message)
    return found


def join_neighbours(chat: Sequence[Message]) -> list[Message]:
    """Messages that follow one of the same role are added to it; calls and results stay apart."""
    found: list[Message] = []
    for message in chat:
        last = found[-1] if found else {"role": "tool"}
        if message["role"] == last["role"] != "tool" and not last.get("tool_calls"):
            found[-1] = _joined(last, message)
        else:
            found.append(message)
    return found


def _joined(first: Message, second: Message) -> Message:
    texts: Message = {
        key: "\n\n".join(filter(None, [first.get(key), second.get(key)]))
        for key in ("content", "reasoning_content")
        if key in first or key in second
    }
    return {**first, **second, **texts}


def _later_system_as_user(chat: Sequence[Message]) -> list[Message]:
    return [_as_user(m) if place and m["role"] == "system" else m for place, m in enumerate(chat)]


def _as_user(message: Message) -> Message:
    return {**message, "role": "user"}
