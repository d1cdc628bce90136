"""Chat messages to prompt tokens, by the model's own chat template.

One law: every message's text, and every call with its arguments and result, is in the prompt in
its place, or the request is refused with the name of what the template does not show. A template
that does not show a chat as it is gets it in other shapes, see `turns` and `tool_prompt`; the
first that `places` finds whole is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from litellm_mlx.errors import RequestError
from litellm_mlx.translate.places import LostError, Marks, OwnMarkup
from litellm_mlx.translate.plain_messages import Message, plain_message
from litellm_mlx.translate.tool_formats.deepseek import DSML
from litellm_mlx.translate.tool_formats.families import form_of, template_of
from litellm_mlx.translate.tool_formats.form import Form
from litellm_mlx.translate.tool_prompt import call_shapes, instruction, linked, with_instruction
from litellm_mlx.translate.turns import turn_shapes

Tools = Sequence[Mapping[str, Any]]

# A template that reads a message's thought from a field of its own.
_READS_THOUGHTS = re.compile(
    r"""(?:\.|\[\s*['"]|get\(\s*['"])(?:reasoning_content|reasoning|thinking)\b"""
)
_READS_PARTS = re.compile(r"""[.'"]type\b""")


def render_chat(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    template_kwargs: Mapping[str, Any],
    *,
    tools: Tools = (),
) -> str:
    """The prompt text of a chat; a last assistant message is left open to be continued.

    Args:
        tokenizer: mlx-lm's wrapper.
        messages: OpenAI's shape; list-form text, `developer` and missing content are fine.
        template_kwargs: extra names for the template, `chat_template_kwargs`.
        tools: the functions that may be called, `ToolPlan.template_tools`.

    Raises:
        RequestError: no messages, no chat template, or one that cannot show them.
        UnsupportedParameterError: a message holds something other than text.

    Cost: two renderings for most chats; one that is refused in the end was tried in each shape,
    a dozen for plain talk and up to some two hundred for calls without results and a prefill.
    """
    if not tokenizer.has_chat_template:
        raise RequestError(
            "the model has no chat template; use litellm.text_completion with a raw prompt, or "
            "an instruct model"
        )
    template = _Template.of(tokenizer, template_kwargs)
    chat = template.with_thoughts(linked([plain_message(message) for message in messages]))
    if chat and _is_open(chat[-1]) and not _says_something(chat[-1]):
        chat.pop()
    if not chat:
        raise RequestError("messages is empty; send at least one message")
    first_error: Exception | None = None
    for way in _ways(chat, template):
        told = with_instruction(chat, instruction(template.form, tools)) if tools else []
        attempts = [(chat, tools), (told, ())] if template.names("tools") else [(told, ())]
        for attempt, shown_tools in attempts if tools else [(chat, tools)]:
            try:
                return template.first_whole(attempt, shown_tools, way)
            except Exception as error:  # jinja2 raises whatever the template's author wrote
                first_error = first_error or error
    raise _refusal(first_error) from first_error


@dataclass(frozen=True, slots=True)
class _Way:
    """How a chat is put into the template, whatever its shape.

    Attributes:
        appends_answer: an answer's beginning comes behind the prompt for an answer; else the
            template writes it and is cut off after it.
        has_parts: contents are lists of parts, as templates of models that see images read them.
    """

    appends_answer: bool = False
    has_parts: bool = False


def _ways(chat: Sequence[Message], template: _Template) -> Iterator[_Way]:
    has_parts = template.needs_parts()
    yield _Way(has_parts=has_parts)
    if _is_open(chat[-1]):
        yield _Way(appends_answer=True, has_parts=has_parts)


@dataclass(frozen=True, slots=True)
class _Template:
    """A model's chat template, with what it is told beside the chat.

    Attributes:
        tokenizer: mlx-lm's wrapper, which renders it.
        kwargs: further names for the template.
        form: how the model writes calls.
        text: of the template; empty where it is a function.
        markup: what it reads out of texts.
        reads_thoughts: it reads them from a field of the message.
    """

    tokenizer: Any
    kwargs: Mapping[str, Any]
    form: Form
    text: str
    markup: OwnMarkup
    reads_thoughts: bool

    @classmethod
    def of(cls, tokenizer: Any, kwargs: Mapping[str, Any]) -> _Template:
        text = template_of(tokenizer)
        markers = (
            getattr(tokenizer, "think_start", None) or "<think>",
            getattr(tokenizer, "think_end", None) or "</think>",
        )
        reads_thoughts = _READS_THOUGHTS.search(text) is not None or text == DSML
        markup = OwnMarkup.of(text, markers, reads_thoughts=reads_thoughts)
        text = "" if text == DSML else text  # the template is a function
        return cls(tokenizer, kwargs, form_of(tokenizer), text, markup, reads_thoughts)

    def names(self, name: str) -> bool:
        """The template may read this name."""
        return not self.text or name in self.text

    def needs_parts(self) -> bool:
        """It shows no content that is plain text, but the same as a list of parts."""
        if not _READS_PARTS.search(self.text) or self._shows_a_question(_Way()):
            return False
        return self._shows_a_question(_Way(has_parts=True))

    def _shows_a_question(self, way: _Way) -> bool:
        try:
            self._whole([{"role": "user", "content": "?"}], (), way)
        except Exception:  # the template's own, or a LostError
            return False
        return True

    def with_thoughts(self, chat: Sequence[Message]) -> list[Message]:
        """Thoughts stay a field where the template reads one; else they are text."""
        return list(chat) if self.reads_thoughts else [self._spoken(m) for m in chat]

    def _spoken(self, message: Message) -> Message:
        """A thought as text before what was said, between the model's markers."""
        rest = {k: v for k, v in message.items() if k != "reasoning_content"}
        if thought := message.get("reasoning_content"):
            opening, closing = self.markup.thought
            rest["content"] = f"{opening}\n{thought}\n{closing}\n\n{message['content']}"
        return rest

    def first_whole(self, chat: Sequence[Message], tools: Tools, way: _Way) -> str:
        """The prompt in the first shape of the chat that the template shows.

        Raises:
            Exception: what the first shape fails with; a tool that is not shown ends the search.
        """
        first_error: Exception | None = None
        for calls in call_shapes(chat, self.form, self.text):
            for shape in turn_shapes(calls):
                try:
                    return self._whole(shape, tools, way)
                except LostError as error:
                    if error.part == "tool":
                        raise
                    first_error = first_error or error
                    if error.part == "call":  # other turns show no more of them
                        break
                except Exception as error:  # the template's own
                    first_error = first_error or error
        raise first_error or LostError("this chat")

    def _whole(self, chat: list[Message], tools: Tools, way: _Way) -> str:
        answer = ""
        if way.appends_answer:
            answer = self._spoken(chat[-1])["content"]
            chat = chat[:-1] or [{"role": "user", "content": ""}]
        continues = _is_open(chat[-1]) and not way.appends_answer
        marks = Marks(self.markup)
        marked = self._apply(marks.chat(chat, continues=continues), marks.tools(tools), way)
        text = self._apply(chat, tools, way)
        marks.check(marked, text)
        return self._continued(text, answer) if answer else text

    def _apply(self, chat: Sequence[Message], tools: Tools, way: _Way) -> str:
        continues = _is_open(chat[-1]) and not way.appends_answer
        if way.has_parts:
            chat = [{**m, "content": _parts(m["content"])} for m in chat]
        text: str = self.tokenizer.apply_chat_template(
            list(chat),
            tokenize=False,
            **{
                "add_generation_prompt": not continues,
                "continue_final_message": continues,
                **self.kwargs,
                **({"tools": list(tools)} if tools else {}),
            },
        )
        return text

    def _continued(self, prompt: str, answer: str) -> str:
        """A prompt for an answer and the answer's beginning, with one thought at most."""
        opening, closing = map(re.escape, self.markup.thought)
        if re.match(rf"\s*{opening}", answer):
            prompt = re.sub(rf"{opening}\s*({closing}\s*)?\Z", "", prompt)
        elif ends_in_thinking(prompt, self.markup.thought):
            if self.markup.thought[1] not in answer:
                prompt += f"\n{self.markup.thought[1]}\n\n"
        return prompt + answer


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
    text = plain_message(messages[0])["content"]
    ids = tuple(tokenizer.encode(text))
    if not ids and tokenizer.bos_token_id is not None:
        ids = (tokenizer.bos_token_id,)
    if not ids:
        raise RequestError("the prompt is empty")
    return ids


def ends_in_thinking(text: str, markers: tuple[str, str] | None) -> bool:
    """The rendered prompt leaves a thinking block open."""
    return markers is not None and text.rfind(markers[0]) > text.rfind(markers[1])


def _parts(text: str) -> list[dict[str, str]]:
    """A text as a list of parts; some templates read a part's text under a name of their own."""
    return [{"type": "text", "text": text, "content": text}]


def _is_open(message: Message) -> bool:
    """The message is the beginning of an answer."""
    return message["role"] == "assistant" and not message.get("tool_calls")


def _says_something(message: Message) -> bool:
    return bool(message["content"] or message.get("reasoning_content"))


def _refusal(error: Exception | None) -> RequestError:
    if isinstance(error, (LostError, RequestError)):
        return RequestError(str(error))
    return RequestError(f"the model's chat template refuses these messages: {error}")
