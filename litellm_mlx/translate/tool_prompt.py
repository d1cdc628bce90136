"""Tools and past calls in the prompt, for every chat template.

Owns what a template gets that shows no tools (an instruction in the system message) or no calls
and results: then a past call is the assistant's text, written as the model is asked to write
calls, and the results are the user's text, each under the line "Result of NAME:".
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from litellm_mlx.translate.tool_formats.form import Form, Tool

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
    """The chat with calls and results that know each other: ids, names and roles as of today."""
    names: dict[str, str] = {}
    waiting: list[str] = []
    found = []
    for place, message in enumerate(chat):
        message = dict(message)
        if older := message.pop("function_call", None):
            call = {"id": f"call_{place}", "type": "function", "function": dict(older)}
            message["tool_calls"] = [call]
        if calls := message.get("tool_calls"):
            message["tool_calls"] = calls = [_linked_call(c, place, i) for i, c in enumerate(calls)]
            names.update((call["id"], call["function"].get("name", "")) for call in calls)
            waiting = [call["id"] for call in calls]
        elif message["role"] == "tool":
            given = message.get("tool_call_id")
            call_id = given if given in names else next(iter(waiting), None)
            if call_id is not None:
                message.setdefault("name", names[call_id])
                message.setdefault("tool_call_id", call_id)
                waiting = [left for left in waiting if left != call_id]
        found.append(message)
    return found


def _linked_call(call: Mapping[str, Any], place: int, index: int) -> dict[str, Any]:
    """A past call with its arguments as an object, which most templates want."""
    function = dict(call.get("function") or {})
    try:
        function["arguments"] = json.loads(function.get("arguments") or "{}")
    except (TypeError, ValueError):
        pass  # an object already, or text that the template may show as it is
    call_id = call.get("id") or f"call_{place}_{index}"
    return {**call, "id": call_id, "type": "function", "function": function}


def variants(chat: Sequence[Message], form: Form) -> Iterator[list[Message]]:
    """The same chat in the shapes that templates ask for, the usual one first.

    The last is without calls and results, and any template can show it.
    """
    yield list(chat)
    if not has_calls(chat):
        return
    yield with_short_ids(chat)
    yield one_call_each(chat)
    yield with_text_arguments(chat)
    yield folded(chat, form)


def has_calls(chat: Sequence[Message]) -> bool:
    """Something in the chat is a call or a call's result."""
    return any(message.get("tool_calls") or message["role"] == "tool" for message in chat)


def shows_calls(text: str, chat: Sequence[Message]) -> bool:
    """Whether a rendered chat has its calls and results in it, as anyone would write them.

    A template may quote or trim, so that the longest words are looked for. A call's arguments in
    Python's notation are a sign of a template that wanted them as text.
    """
    for message in chat:
        for call in message.get("tool_calls") or ():
            function = call["function"]
            arguments = function.get("arguments")
            python = repr(arguments)
            if function.get("name", "") not in text:
                return False
            if isinstance(arguments, dict) and arguments and python != json.dumps(arguments):
                if "'" in python and python in text:
                    return False
        if message["role"] == "tool" and _longest_word(message["content"]) not in text:
            return False
    return True


def _longest_word(text: str) -> str:
    return max(re.findall(r"\w+", text), key=len, default="")


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


def one_call_each(chat: Sequence[Message]) -> list[Message]:
    """Several calls of one message as several messages, each before its own result."""
    found: list[Message] = []
    results = {m.get("tool_call_id"): m for m in chat if m["role"] == "tool"}
    for message in chat:
        calls = message.get("tool_calls") or []
        if message["role"] == "tool" and message.get("tool_call_id"):
            continue  # put behind its call
        for place, call in enumerate(calls):
            content = message["content"] if place == 0 else ""
            found.append({**message, "content": content, "tool_calls": [call]})
            if call["id"] in results:
                found.append(results[call["id"]])
        if not calls:
            found.append(message)
    return found


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
    plain = [_folded(message, form) for message in chat]
    found = []
    for role, group in groupby(plain, key=lambda message: message["role"]):
        texts = [message["content"] for message in group if message["content"]]
        found.append({"role": role, "content": "\n\n".join(texts)})
    return found


def _folded(message: Message, form: Form) -> Message:
    content = message["content"]
    if message["role"] == "tool":
        name = message.get("name", "the call")
        return {"role": "user", "content": f"Result of {name}:\n{content}"}
    if calls := message.get("tool_calls"):
        written = form.between.join(_written(c["function"], form, i) for i, c in enumerate(calls))
        content = "\n".join(filter(None, [content, form.opens + written + form.closes]))
    return {"role": message["role"], "content": content}


def _written(function: Mapping[str, Any], form: Form, index: int) -> str:
    arguments = function.get("arguments")
    tool = Tool(str(function.get("name", "")), "", {})
    return form.call_text(tool, arguments if isinstance(arguments, Mapping) else {}, index)
