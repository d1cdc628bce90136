"""LiteLLM's arguments to a `GenerationRequest`; what we cannot honour is refused here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from litellm_mlx.config import EngineConfig
from litellm_mlx.errors import PromptTooLongError, UnsupportedParameterError
from litellm_mlx.translate.messages import (
    encode_chat,
    encode_raw,
    ends_in_thinking,
    render_chat,
)
from litellm_mlx.translate.params import RequestParams, parse_params
from litellm_mlx.translate.response_format import constraint_of
from litellm_mlx.types import Constraint, GenerationRequest, SamplingDefaults


class ChatModel(Protocol):
    """What a request is checked against; the loader's `LoadedModel` has it."""

    @property
    def tokenizer(self) -> Any:
        """mlx-lm's tokenizer wrapper."""

    @property
    def context_tokens(self) -> int:
        """Longest prompt and completion together."""

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""

    @property
    def sampling(self) -> SamplingDefaults:
        """The model's own generation config."""

    @property
    def thinking_markers(self) -> tuple[str, str] | None:
        """The texts that open and close a thinking block, where it has one."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call as LiteLLM hands it over.

    Attributes:
        messages: OpenAI's shape.
        params: LiteLLM's `optional_params`.
        is_raw: a text completion; its one message is the prompt.
        is_stream: the caller wants deltas.
        drops_unsupported: LiteLLM's `drop_params`.
        deadline_s: monotonic time.
    """

    messages: Sequence[Mapping[str, Any]]
    params: Mapping[str, Any]
    is_raw: bool
    is_stream: bool
    drops_unsupported: bool
    deadline_s: float


def build_request(call: Call, model: ChatModel, config: EngineConfig) -> GenerationRequest:
    """Translate one call.

    Raises:
        UnsupportedParameterError: a parameter, a value or a combination that we do not honour.
        ConstraintError: `response_format` is not a usable schema.
        PromptTooLongError: the prompt leaves no room for a completion.
    """
    params = parse_params(call.params, drops_unsupported=call.drops_unsupported)
    constraint = constraint_of(
        params.response_format, params.guided_decoding_backend or config.backend
    )
    _check_combination(params, constraint, call)
    prompt_token_ids, opens_reasoning = _prompt(call, model, params, constraint)
    _check_ids(params, model)
    return GenerationRequest(
        prompt_token_ids=prompt_token_ids,
        max_tokens=_max_tokens(params, len(prompt_token_ids), model, config),
        sampling=params.sampling(model.sampling),
        n=params.n,
        stop=tuple(params.stop),
        num_top_logprobs=params.num_top_logprobs,
        constraint=constraint,
        deadline_s=call.deadline_s,
        opens_reasoning=opens_reasoning,
    )


def _check_combination(params: RequestParams, constraint: Constraint | None, call: Call) -> None:
    if call.is_stream and params.n > 1:
        raise UnsupportedParameterError(
            f"n={params.n} with stream=True: LiteLLM streams one completion; make {params.n} calls"
        )
    if constraint is not None and params.stop:
        raise UnsupportedParameterError(
            "stop together with response_format could cut the JSON in half; leave `stop` out, the "
            "text ends by itself when the JSON is complete"
        )


def _check_ids(params: RequestParams, model: ChatModel) -> None:
    for token_id in params.logit_bias:
        if token_id >= model.vocab_size:
            raise UnsupportedParameterError(
                f"logit_bias names token {token_id}; the model has {model.vocab_size}"
            )


def _prompt(
    call: Call, model: ChatModel, params: RequestParams, constraint: Constraint | None
) -> tuple[tuple[int, ...], bool]:
    """The prompt's tokens, and whether it ends inside a thinking block."""
    if call.is_raw:
        return encode_raw(model.tokenizer, call.messages), False
    kwargs = dict(params.chat_template_kwargs)
    if constraint is not None:
        kwargs.setdefault("enable_thinking", False)
    text = render_chat(model.tokenizer, call.messages, kwargs)
    opens_reasoning = ends_in_thinking(text, model.thinking_markers)
    if opens_reasoning and constraint is not None:
        # The template leaves no choice; an empty thought keeps the answer in the model's format.
        assert model.thinking_markers is not None
        text += f"\n{model.thinking_markers[1]}\n\n"
        opens_reasoning = False
    return encode_chat(model.tokenizer, text), opens_reasoning


def _max_tokens(
    params: RequestParams, num_prompt: int, model: ChatModel, config: EngineConfig
) -> int:
    room = model.context_tokens - num_prompt
    if room < 1:
        raise PromptTooLongError(
            f"the prompt has {num_prompt} tokens and the model's context is "
            f"{model.context_tokens}; shorten the messages or use a model with a longer context"
        )
    return min(room, params.max_tokens or config.default_max_tokens)
