"""Chat messages of every shape that LiteLLM lets through become a prompt, or are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jinja2 import TemplateError

from litellm_mlx.errors import RequestError, UnsupportedParameterError
from litellm_mlx.translate.messages import ends_in_thinking, render_chat


class RecordingTokenizer:
    """Stands for mlx-lm's wrapper: keeps what the template was given."""

    has_chat_template = True
    bos_token_id = None

    def __init__(self, *, refuses: str = "") -> None:
        self.refuses = refuses
        self.chat: list[dict[str, Any]] = []
        self.kwargs: dict[str, Any] = {}

    def apply_chat_template(self, chat: list[dict[str, Any]], **kwargs: Any) -> str:
        if any(m["role"] == self.refuses for m in chat):
            raise TemplateError(f"{self.refuses} role not supported")
        self.chat, self.kwargs = chat, kwargs
        return "".join(
            f"<{m['role']}>{m['content']}{json.dumps(m.get('tool_calls'))}" for m in chat
        )


def rendered(*messages: dict[str, Any], **options: str) -> RecordingTokenizer:
    tokenizer = RecordingTokenizer(**options)
    render_chat(tokenizer, messages, {})
    return tokenizer


def test_developer_is_system_and_function_is_tool() -> None:
    chat = rendered(
        {"role": "developer", "content": "d"}, {"role": "function", "name": "f", "content": "r"}
    ).chat
    assert [m["role"] for m in chat] == ["system", "tool"]


def test_list_form_text_is_joined_and_missing_content_is_empty() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    chat = rendered({"role": "user", "content": parts}, {"role": "tool", "tool_call_id": "1"}).chat
    assert [m["content"] for m in chat] == ["a\nb", ""]


def test_arguments_of_past_tool_calls_are_objects() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    chat = rendered({"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "2"})
    assert chat.chat[0]["tool_calls"][0]["function"]["arguments"] == {"x": 1}


def test_a_last_assistant_message_is_continued() -> None:
    tokenizer = rendered({"role": "user", "content": "q"}, {"role": "assistant", "content": "It"})
    assert tokenizer.kwargs["continue_final_message"] is True
    assert tokenizer.kwargs["add_generation_prompt"] is False


def test_an_empty_last_assistant_message_is_no_prefill() -> None:
    tokenizer = rendered({"role": "user", "content": "q"}, {"role": "assistant", "content": ""})
    assert [m["role"] for m in tokenizer.chat] == ["user"]
    assert tokenizer.kwargs["add_generation_prompt"] is True


def test_system_text_moves_to_the_user_where_the_template_has_no_system_role() -> None:
    tokenizer = rendered(
        {"role": "system", "content": "s"}, {"role": "user", "content": "u"}, refuses="system"
    )
    assert tokenizer.chat == [{"role": "user", "content": "s\n\nu"}]


def test_an_image_on_a_text_model_is_refused() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,x"}}
    with pytest.raises(UnsupportedParameterError, match="image_url"):
        rendered({"role": "user", "content": [image]})


@pytest.mark.parametrize(
    "messages", [[], [{"role": "assistant", "content": None}], [{"content": "no role"}]]
)
def test_nothing_to_answer_is_refused(messages: list[dict[str, Any]]) -> None:
    with pytest.raises(RequestError):
        rendered(*messages)


def test_what_a_template_refuses_is_a_typed_error() -> None:
    with pytest.raises(RequestError, match="user role not supported"):
        rendered({"role": "user", "content": "alone"}, refuses="user")


def test_an_open_thinking_block_is_seen() -> None:
    markers = ("<think>", "</think>")
    assert ends_in_thinking("<think>old</think> ... <think>\n", markers)
    assert not ends_in_thinking("<think>\n\n</think>\n\n", markers)
    assert not ends_in_thinking("<think>", None)
