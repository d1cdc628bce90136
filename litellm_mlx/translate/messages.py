"""Chat messages to prompt tokens, by the model's own chat template."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from litellm_mlx.errors import RequestError, UnsupportedParameterError
from litellm_mlx.translate.tool_formats.families import form_of
from litellm_mlx.translate.tool_formats.form import Form
from litellm_mlx.translate.tool_prompt import (
    instruction,
    linked,
    shows_calls,
    variants,
    with_instruction,
)

Message = dict[str, Any]


def render_chat(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    template_kwargs: Mapping[str, Any],
    *,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The prompt text of a chat; a last assistant message is left open to be continued.

    Args:
        tokenizer: mlx-lm's wrapper.
        messages: OpenAI's shape; list-form text, `developer` and missing content are fine.
        template_kwargs: extra names for the template, `chat_template_kwargs`.
        tools: the functions that may be called, `ToolPlan.template_tools`.

    Raises:
        RequestError: no messages, no chat template, or the template refuses them.
        UnsupportedParameterError: a message holds something other than text.
    """
    if not tokenizer.has_chat_template:
        raise RequestError(
            "the model has no chat template; use litellm.text_completion with a raw prompt, or "
            "an instruct model"
        )
    chat = linked([_plain_message(message) for message in messages])
    if chat and _is_open(chat[-1]) and not chat[-1]["content"]:
        chat.pop()
    if not chat:
        raise RequestError("messages is empty; send at least one message")
    form = form_of(tokenizer)
    first_error: Exception | None = None
    for fold in (list, _fold_system):  # some families' templates have no system role
        for variant in variants(chat, form):
            try:
                text = _render(tokenizer, variant, fold, template_kwargs, tools, form)
            except Exception as error:  # jinja2 raises whatever the template's author wrote
                first_error = first_error or error
                continue
            if shows_calls(text, variant):
                return text
    raise _template_error(first_error) from first_error


def _render(
    tokenizer: Any,
    chat: list[Message],
    fold: Callable[[list[Message]], list[Message]],
    template_kwargs: Mapping[str, Any],
    tools: Sequence[Mapping[str, Any]],
    form: Form,
) -> str:
    """One way to render; where the template passes over the tools, the system message has them."""

    def apply(chat: list[Message], **tools: Any) -> str:
        return _apply_template(tokenizer, fold(chat), {**template_kwargs, **tools})

    if not tools:
        return apply(chat)
    text = apply(chat, tools=list(tools))
    if text != apply(chat):
        return text
    return apply(with_instruction(chat, instruction(form, tools)))


def encode_chat(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Token ids of a rendered chat; the template has written all special tokens itself."""
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def encode_raw(tokenizer: Any, messages: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
    """Token ids of a text completion's prompt, which LiteLLM passes as one user message.

    Raises:
        RequestError: several prompts, since LiteLLM can return one answer only, or an empty one.
    """
    if len(messages) != 1:
        raise RequestError(
            f"text completion got {len(messages)} prompts and LiteLLM returns one answer; send "
            "one prompt a call"
        )
    text = _plain_message(messages[0])["content"]
    ids = tuple(tokenizer.encode(text))
    if not ids and tokenizer.bos_token_id is not None:
        ids = (tokenizer.bos_token_id,)
    if not ids:
        raise RequestError("the prompt is empty")
    return ids


def ends_in_thinking(text: str, markers: tuple[str, str] | None) -> bool:
    """The rendered prompt leaves a thinking block open."""
    return markers is not None and text.rfind(markers[0]) > text.rfind(markers[1])


def _is_open(message: Message) -> bool:
    """The message is the beginning of an answer."""
    return message["role"] == "assistant" and not message.get("tool_calls")


def _apply_template(tokenizer: Any, chat: list[Message], template_kwargs: Mapping[str, Any]) -> str:
    continues = _is_open(chat[-1])
    text: str = tokenizer.apply_chat_template(
        chat,
        tokenize=False,
        **{
            "add_generation_prompt": not continues,
            "continue_final_message": continues,
            **template_kwargs,
        },
    )
    return text


def _template_error(error: Exception | None) -> RequestError:
    return RequestError(f"the model's chat template refuses these messages: {error}")


def _plain_message(message: Mapping[str, Any]) -> Message:
    """One message as templates expect it: known role and text content."""
    role = message.get("role")
    if not isinstance(role, str):
        raise RequestError(f"a message needs a role, got {role!r}")
    plain: Message = {k: v for k, v in message.items() if v is not None}
    plain["role"] = {"developer": "system", "function": "tool"}.get(role, role)
    plain["content"] = _text_of(message.get("content"))
    return plain


def _text_of(content: Any) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "\n".join(_text_of_part(part) for part in content)
    raise RequestError(f"message content must be text, got {type(content).__name__}")


def _text_of_part(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    text = part.get("text") if isinstance(part, Mapping) else None
    if kind in ("text", "input_text", "output_text") and isinstance(text, str):
        return text
    raise UnsupportedParameterError(
        f"message content of type {kind!r} is not supported; this model reads text only"
    )


def _fold_system(chat: list[Message]) -> list[Message]:
    """System text put in front of the first user message."""
    system = "\n\n".join(m["content"] for m in chat if m["role"] == "system")
    rest = [dict(m) for m in chat if m["role"] != "system"]
    first_user = next((m for m in rest if m["role"] == "user"), None)
    if not system or first_user is None:
        return chat
    first_user["content"] = f"{system}\n\n{first_user['content']}"
    return rest
