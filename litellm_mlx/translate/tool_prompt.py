"""Tools and past calls in the prompt, for every chat template.

Owns what a template gets that shows no tools (an instruction in the system message), and the shapes
in which it may show calls and results. Where it shows none, a past call is the assistant's text,
written as the model is asked to write calls, and the results are the user's text, each under the
line "Result of NAME:". Whether a template shows a shape is for `places` to say.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from litellm_mlx.translate.tool_formats.form import Form, Tool
from litellm_mlx.translate.turns import join_neighbours
from litellm_mlx.translate.well_formed import well_formed

Message = dict[str, Any]


def instruction(form: Form, template_tools: Sequence[Mapping[str, Any]]) -> str:
    """Say which functions there are and how to call one, in the form that is then enforced."""
    lines = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in template_tools)
    example = form.call_text(Tool("FUNCTION_NAME", "", {}), {"ARGUMENT_NAME": "VALUE"})
    return (
        "You can call functions. Each line describes one, with the JSON schema of its arguments:\n"
        f"{lines}\n\n"
        "To call a function, write the following, once for each call, and nothing after it:\n"
        f"{form.opens}{example}{form.closes}"
    )


def with_instruction(chat: Sequence[Message], text: str) -> list[Message]:
    """The chat with a text at the end of its system message, or as its system message."""
    if chat and chat[0]["role"] == "system":
        first = {**chat[0], "content": f"{chat[0]['content']}\n\n{text}"}
        return [first, *chat[1:]]
    return [{"role": "system", "content": text}, *chat]


def linked(chat: Sequence[Message]) -> list[Message]:
    """The chat with calls and results that know each other: ids, names and roles as of today.

    Results stand in the order of their calls, since most templates show neither names nor ids.
    """
    names: dict[Any, str] = {}
    waiting: list[tuple[Any, Any]] = []  # the client's id of a call, and ours
    found = []
    for place, message in enumerate(chat):
        message = dict(message)
        if older := message.pop("function_call", None):
            call = {"id": f"call_{place}", "type": "function", "function": dict(older)}
            message["tool_calls"] = [call]
        if given := message.get("tool_calls"):
            calls = [_linked_call(c, place, i) for i, c in enumerate(given)]
            message["tool_calls"] = calls = _with_ids_of_their_own(calls)
            names.update((call["id"], call["function"].get("name", "")) for call in calls)
            waiting = [(c.get("id"), call["id"]) for c, call in zip(given, calls, strict=True)]
        elif message["role"] == "tool":
            call_id = _call_of(message.get("tool_call_id"), waiting, names)
            if call_id is not None:
                message.setdefault("name", names[call_id])
                message["tool_call_id"] = call_id
                waiting = [pair for pair in waiting if pair[1] != call_id]
        found.append(message)
    return _in_order_of_calls(found)


def _call_of(given: Any, waiting: Sequence[tuple[Any, Any]], names: Mapping[Any, str]) -> Any:
    """Our id of the call that a result is of: by its id, else the first that waits for one."""
    by_id = (ours for theirs, ours in waiting if theirs == given)
    first = waiting[0][1] if waiting else None
    return next(by_id, given if given in names else first)


def _with_ids_of_their_own(calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Parallel calls to which a client gave one id, with several."""
    ids = [call["id"] for call in calls]
    return [
        {**call, "id": f"{call['id']}_{i}"} if call["id"] in ids[:i] else call
        for i, call in enumerate(calls)
    ]


def _linked_call(call: Mapping[str, Any], place: int, index: int) -> dict[str, Any]:
    """A past call with its arguments as an object, which most templates want."""
    function = dict(call.get("function") or {})
    try:
        function["arguments"] = well_formed(json.loads(function.get("arguments") or "{}"))
    except (TypeError, ValueError):
        pass  # an object already, or text that the template may show as it is
    call_id = call.get("id") or f"call_{place}_{index}"
    return {**call, "id": call_id, "type": "function", "function": function}


def _in_order_of_calls(chat: Sequence[Message]) -> list[Message]:
    found: list[Message] = []
    for calls, results in _rounds(chat):
        order = {call["id"]: place for place, call in enumerate(calls)}
        found += sorted(results, key=lambda m: order.get(m.get("tool_call_id"), len(order)))
    return found


def _rounds(chat: Sequence[Message]) -> Iterator[tuple[list[Any], list[Message]]]:
    """Runs of results, each with the calls right before it; any other message alone."""
    calls: list[Any] = []
    for is_tool, group in groupby(chat, key=lambda message: message["role"] == "tool"):
        if is_tool:
            yield calls, list(group)
            continue
        for message in group:
            calls = message.get("tool_calls") or []
            yield [], [message]


def call_shapes(chat: Sequence[Message], form: Form, template: str) -> Iterator[list[Message]]:
    """The same chat with its calls in the shapes that templates ask for, the usual one first.

    The last is without calls and results, and any template can show it.

    Args:
        chat: from `linked`.
        form: how the model writes calls.
        template: its text, empty where it is not known.
    """
    if not has_calls(chat):
        yield list(chat)
        return
    told = with_lone_results_told(chat)
    yield from _native_shapes(chat, template)
    if told != chat:
        yield from _native_shapes(told, template)
    yield folded(chat, form)


def _native_shapes(chat: Sequence[Message], template: str) -> Iterator[list[Message]]:
    yield list(chat)
    if template and "tool_calls" not in template:
        return  # no other name holds calls, unless a whole message is printed
    if any(message.get("tool_calls") for message in chat):
        yield with_short_ids(chat)
        yield with_named_ids(chat)
        yield one_call_each(chat)
        yield with_text_arguments(chat)
        yield with_text_arguments(with_named_ids(chat))
        yield with_text_arguments(one_call_each(chat))


def has_calls(chat: Sequence[Message]) -> bool:
    """Something in the chat is a call or a call's result."""
    return any(message.get("tool_calls") or message["role"] == "tool" for message in chat)


def with_lone_results_told(chat: Sequence[Message]) -> list[Message]:
    """Results whose call is not there (a client cut the chat's beginning) as the user's text."""
    known = {call["id"] for message in chat for call in message.get("tool_calls") or ()}
    return [
        _result_text(m) if m["role"] == "tool" and m.get("tool_call_id") not in known else m
        for m in chat
    ]


def with_short_ids(chat: Sequence[Message]) -> list[Message]:
    """Ids of nine letters and digits, as Mistral's templates want them."""

    def short(call_id: Any) -> str:
        text = str(call_id)
        if re.fullmatch("[A-Za-z0-9]{9}", text):
            return text
        return hashlib.sha256(text.encode()).hexdigest()[:9]

    found = []
    for message in chat:
        message = dict(message)
        if message.get("tool_calls"):
            message["tool_calls"] = [{**c, "id": short(c["id"])} for c in message["tool_calls"]]
        if "tool_call_id" in message:
            message["tool_call_id"] = short(message["tool_call_id"])
        found.append(message)
    return found


def with_named_ids(chat: Sequence[Message]) -> list[Message]:
    """Ids that name the function and count the calls, as Kimi's template shows nothing else.

    The rule is Moonshot's own: `functions.NAME:INDEX`, the index going on through the chat.
    """
    new_ids: dict[Any, str] = {}
    number = 0
    found = []
    for message in chat:
        message = dict(message)
        if calls := message.get("tool_calls"):
            for call in calls:
                new_ids[call["id"]] = f"functions.{call['function'].get('name', '')}:{number}"
                number += 1
            message["tool_calls"] = [{**call, "id": new_ids[call["id"]]} for call in calls]
        elif message.get("tool_call_id") in new_ids:
            message["tool_call_id"] = new_ids[message["tool_call_id"]]
        found.append(message)
    return found


def one_call_each(chat: Sequence[Message]) -> list[Message]:
    """Several calls of one message as several messages, each before its own results."""
    found: list[Message] = []
    for calls, messages in _rounds(chat):
        if calls:
            for call in _apart(found.pop()):
                call_id = call["tool_calls"][0]["id"]
                found += [call, *(m for m in messages if m.get("tool_call_id") == call_id)]
        ids = {call["id"] for call in calls}
        found += [m for m in messages if not ids or m.get("tool_call_id") not in ids]
    return [one for message in found for one in _apart(message)]


def _apart(message: Message) -> list[Message]:
    """A message as one for each call, the text in the first."""
    if not (calls := message.get("tool_calls")):
        return [message]
    later: Message = {"role": message["role"], "content": ""}
    return [{**(later if i else message), "tool_calls": [call]} for i, call in enumerate(calls)]


def with_text_arguments(chat: Sequence[Message]) -> list[Message]:
    """Arguments as JSON text, which some templates put together with other text."""

    def as_text(call: Mapping[str, Any]) -> dict[str, Any]:
        arguments = call["function"].get("arguments")
        if isinstance(arguments, str):
            return dict(call)
        text = json.dumps(arguments, ensure_ascii=False)
        return {**call, "function": {**call["function"], "arguments": text}}

    return [
        {**m, "tool_calls": [as_text(call) for call in m["tool_calls"]]}
        if m.get("tool_calls")
        else m
        for m in chat
    ]


def folded(chat: Sequence[Message], form: Form) -> list[Message]:
    """Calls and results as plain text; messages of one side that then touch are one."""
    return join_neighbours([_folded(message, form) for message in chat])


def _folded(message: Message, form: Form) -> Message:
    if message["role"] == "tool":
        return _result_text(message)
    if not (calls := message.get("tool_calls")):
        return message
    written = form.between.join(_written(c["function"], form, i) for i, c in enumerate(calls))
    text = "\n".join(filter(None, [message["content"], form.opens + written + form.closes]))
    return {**{k: v for k, v in message.items() if k != "tool_calls"}, "content": text}


def _result_text(message: Message) -> Message:
    name = message.get("name", "the call")
    return {"role": "user", "content": f"Result of {name}:\n{message['content']}"}


def _written(function: Mapping[str, Any], form: Form, index: int) -> str:
    arguments = function.get("arguments", {})
    tool = Tool(str(function.get("name", "")), "", {})
    if isinstance(arguments, Mapping):
        return form.call_text(tool, arguments, index)
    # The model's or the client's own slip, which the model should see as it was.
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return form.text_around(tool, text, index)
