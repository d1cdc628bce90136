"""LiteLLM's arguments to a `GenerationRequest`; what we cannot honour is refused here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from litellm_mlx.config import EngineConfig
from litellm_mlx.errors import PromptTooLongError, UnsupportedParameterError
from litellm_mlx.grammar.structure import structure_constraint
from litellm_mlx.translate.messages import encode_raw
from litellm_mlx.translate.params import RequestParams, parse_params
from litellm_mlx.translate.prompt import Guided, Prompt, PromptModel, chat_prompt
from litellm_mlx.translate.structured import (
    Repaired,
    part_of,
    repaired_constraint,
    wanted_constraint,
)
from litellm_mlx.translate.thinking import ThinkingWish, wish_of
from litellm_mlx.translate.tool_formats.families import form_of
from litellm_mlx.translate.tools import ToolPlan, plan_tools
from litellm_mlx.translate.well_formed import checked_params, well_formed
from litellm_mlx.types import (
    Constraint,
    FinishReason,
    GenerationRequest,
    SamplingDefaults,
    Thinking,
)


class ChatModel(PromptModel, Protocol):
    """What a request is checked against; the loader's `LoadedModel` has it."""

    @property
    def context_tokens(self) -> int:
        """Longest prompt and completion together."""

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""

    @property
    def sampling(self) -> SamplingDefaults:
        """The model's own generation config."""


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
        repairs_prompt: a known prompt may say more of the answer than the request does.
        takes_hints: what cannot change what the answer must be is accepted without effect.
    """

    messages: Sequence[Mapping[str, Any]]
    params: Mapping[str, Any]
    is_raw: bool
    is_stream: bool
    drops_unsupported: bool
    deadline_s: float
    repairs_prompt: bool = True
    takes_hints: bool = False


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request for the engine, and what the answer will need to know of it.

    Attributes:
        generation: for the engine.
        tools: how its tools are served; `None` where no call can come.
        repairs: what was mended of the request's schema.
        budget_finish_reason: to report where the token budget closes the text.
        count_only: the caller wants no answer, only the length of the prompt.
    """

    generation: GenerationRequest
    tools: ToolPlan | None = None
    repairs: tuple[str, ...] = ()
    budget_finish_reason: FinishReason = "length"
    count_only: bool = False


def build_request(call: Call, model: ChatModel, config: EngineConfig) -> PreparedRequest:
    """Translate one call.

    Raises:
        RequestError: a text that the answer would need holds half a character.
        UnsupportedParameterError: a parameter, a value or a combination that we do not honour.
        ConstraintError: `response_format` is not a usable schema.
        PromptTooLongError: the prompt leaves no room for a completion.
    """
    call = replace(
        call, messages=well_formed(call.messages), params=checked_params(dict(call.params))
    )
    params = parse_params(
        call.params, drops_unsupported=call.drops_unsupported, takes_hints=call.takes_hints
    )
    constraint = wanted_constraint(params, params.guided_decoding_backend or config.backend)
    repaired = _repaired(call, params, config)
    if repaired is not None:
        constraint = repaired.constraint
    tools = _tool_plan(call, params, constraint, model)
    stop = _stop(params, constraint, tools)
    guided: Guided = "free" if constraint is None else "all"
    if tools is not None:
        constraint = structure_constraint(tools.root)
        guided = "calls" if tools.may_begin_with_text else "all"
    _check_combination(params, call)
    wish = wish_of(params)
    if (call.drops_unsupported or call.takes_hints) and not model.thinks:
        wish = ThinkingWish()
    prompt = _prompt(call, model, params, wish, guided, tools)
    _check_ids(params, model)
    max_tokens = _max_tokens(params, len(prompt.token_ids), model, config)
    generation = GenerationRequest(
        prompt_token_ids=prompt.token_ids,
        max_tokens=max_tokens,
        sampling=params.sampling(model.sampling),
        n=params.n,
        stop=stop,
        num_top_logprobs=params.num_top_logprobs,
        raw_logprobs=params.logprobs_mode == "raw",
        constraint=constraint,
        deadline_s=call.deadline_s,
        opens_reasoning=prompt.opens_reasoning,
        thinking=_thinking(prompt, wish, constraint, max_tokens),
        cache_key=params.prompt_cache_key,
        is_streamed=call.is_stream,
    )
    return PreparedRequest(
        generation,
        tools=tools,
        repairs=(
            *(() if repaired is None else repaired.repairs),
            *(() if tools is None else tools.repairs),
        ),
        budget_finish_reason=params.budget_finish_reason,
        count_only=params.count_only,
    )


def _repaired(call: Call, params: RequestParams, config: EngineConfig) -> Repaired | None:
    """What a known prompt says of the answer, where the request itself says less."""
    is_on = config.prompt_repair if params.prompt_repair is None else params.prompt_repair
    if not is_on or not call.repairs_prompt or call.is_raw or params.stop:
        return None
    return repaired_constraint(call.messages, params, config.backend)


def _tool_plan(
    call: Call, params: RequestParams, constraint: Constraint | None, model: ChatModel
) -> ToolPlan | None:
    if not (params.tools or params.functions or params.tool_choice):
        return None
    if call.is_raw:
        raise UnsupportedParameterError("tools need a chat; a text completion has no roles")
    response_part = None if constraint is None else part_of(constraint)
    return plan_tools(params, response_part, form_of(model.tokenizer))


def _stop(
    params: RequestParams, answer: Constraint | None, tools: ToolPlan | None
) -> tuple[str, ...]:
    """The texts at which the engine ends the answer: none where a constraint says what it is.

    Agents send the stop texts of their own prompts along with everything. What a schema, a regex,
    a choice, a grammar or a call makes of the text is never cut; the free text beside tools ends
    by the plan's own grammar.
    """
    if answer is None and tools is None:
        return tuple(params.stop)
    if params.stop and answer is not None and answer.kind == "structure":
        raise UnsupportedParameterError(
            "stop together with a structural tag could cut the text between two tags or a tag in "
            "half; leave `stop` out"
        )
    return ()


def _check_combination(params: RequestParams, call: Call) -> None:
    if call.is_stream and params.n > 1:
        raise UnsupportedParameterError(
            f"n={params.n} with stream=True: LiteLLM streams one completion; make {params.n} calls"
        )


def _check_ids(params: RequestParams, model: ChatModel) -> None:
    for token_id in params.logit_bias:
        if token_id >= model.vocab_size:
            raise UnsupportedParameterError(
                f"logit_bias names token {token_id}; the model has {model.vocab_size}"
            )


def _prompt(
    call: Call,
    model: ChatModel,
    params: RequestParams,
    wish: ThinkingWish,
    guided: Guided,
    tools: ToolPlan | None,
) -> Prompt:
    if call.is_raw:
        return Prompt(encode_raw(model.tokenizer, call.messages))
    shown = () if tools is None else tools.template_tools
    if tools is not None and tools.form.thought is not None:
        guided = "channels"
    return chat_prompt(call.messages, model, params.chat_template_kwargs, wish, guided, tools=shown)


def _thinking(
    prompt: Prompt, wish: ThinkingWish, constraint: Constraint | None, max_tokens: int
) -> Thinking | None:
    """How the block at the prompt's end is ended, where that is for the engine to do."""
    if not prompt.end_token_ids:
        return None
    budget_tokens = wish.budget_tokens
    if constraint is not None:  # the answer must have its half, or only its shortest form fits
        budget_tokens = min(budget_tokens or max_tokens, max_tokens // 2)
    return Thinking(prompt.end_token_ids, budget_tokens)


def _max_tokens(
    params: RequestParams, num_prompt: int, model: ChatModel, config: EngineConfig
) -> int:
    room = model.context_tokens - num_prompt
    if room < 1 and not params.count_only:
        raise PromptTooLongError(num_prompt, model.context_tokens)
    return min(room, params.max_tokens or config.default_max_tokens)
