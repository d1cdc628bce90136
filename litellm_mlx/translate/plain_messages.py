"""OpenAI's chat messages, and what clients make of them, as chat templates read messages.

Owns roles, text and thoughts of single messages; how calls and results know each other is left to
`tool_prompt`, and in which shape a template can show them to `messages`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from litellm_mlx.errors import RequestError, UnsupportedParameterError

Message = dict[str, Any]

_ROLES = {"developer": "system", "function": "tool"}
# Where the parts of a content keep their text, by type.
_TEXT_KEYS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
_THOUGHT_KEYS = {
    "thinking": ("thinking", "text"),
    "reasoning": ("reasoning", "text", "summary", "content"),
    "reasoning_text": ("text",),
    "summary_text": ("text",),
    "redacted_thinking": (),  # encrypted: only the model that wrote it can read it
}
# Names under which clients send a past thought beside the content; the first that says something.
_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking", "thinking_blocks")


def plain_message(message: Mapping[str, Any]) -> Message:
    """One message as templates expect it: known role, text, and a thought as `reasoning_content`.

    Raises:
        RequestError: it has no role, or content that is no text.
        UnsupportedParameterError: it holds something other than text.
    """
    role = message.get("role")
    if not isinstance(role, str):
        raise RequestError(f"a message needs a role, got {role!r}")
    plain: Message = {k: v for k, v in message.items() if v is not None}
    given = [thought_of(plain.pop(field, None)) for field in _THOUGHT_FIELDS]
    text, thought = _read(message.get("content"), is_assistant=role == "assistant")
    refusal = plain.pop("refusal", None)
    plain["role"] = _ROLES.get(role, role)
    plain["content"] = "\n".join(filter(None, [text, refusal if refusal != text else None]))
    if found := thought or next(filter(None, given), ""):
        plain["reasoning_content"] = found
    if not plain.get("tool_calls", True):
        del plain["tool_calls"]  # some templates ask only whether the name is there
    return plain


def thought_of(value: Any) -> str:
    """The text of a thought, however it is wrapped; empty where there is none to read."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        keys = _THOUGHT_KEYS.get(str(value.get("type", "reasoning")), ("text",))
        return next(filter(None, (thought_of(value.get(key)) for key in keys)), "")
    if isinstance(value, Sequence):
        return "\n".join(filter(None, map(thought_of, value)))
    return ""


def _read(content: Any, *, is_assistant: bool) -> tuple[str, str]:
    """Text and thoughts of a content; what only looks like an assistant's thought is text."""
    if content is None:
        return "", ""
    if isinstance(content, str):
        return content, ""
    if not isinstance(content, Sequence):
        raise RequestError(f"message content must be text, got {type(content).__name__}")
    texts: list[str] = []
    thoughts: list[str] = []
    for part in content:
        if isinstance(part, Mapping) and part.get("type") in _THOUGHT_KEYS:
            (thoughts if is_assistant else texts).append(thought_of(part))
        else:
            texts.append(_text_of_part(part))
    return "\n".join(texts), "\n".join(filter(None, thoughts))


def _text_of_part(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    text = part.get(_TEXT_KEYS.get(str(kind), "")) if isinstance(part, Mapping) else None
    if isinstance(text, str):
        return text
    raise UnsupportedParameterError(
        f"message content of type {kind!r} is not supported; this model reads text only"
    )
