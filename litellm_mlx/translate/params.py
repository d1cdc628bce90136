"""The request parameters that we honour: names, types and limits, checked by Pydantic.

Everything that LiteLLM hands over is either honoured, known to be harmless, or refused by name;
nothing is dropped in silence.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from litellm_mlx.errors import UnsupportedParameterError
from litellm_mlx.registered import check_backend
from litellm_mlx.types import Backend, SamplingDefaults, SamplingParams

# Below it a temperature only overflows the division; greedy is its limit (as in vLLM).
_MIN_TEMPERATURE = 1e-5

# Accepted and without effect here: bookkeeping of the client, or hints for a remote server.
HARMLESS = frozenset(
    {
        "max_retries",
        "metadata",
        "prediction",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "user",
    }
)

# What cannot change what the answer must be: how hard, how fast, how long-winded, where, at whose
# cost, from which cache. Clients of cloud models send them as a matter of course.
HINTS = frozenset(
    {
        "cache_control",
        "cache_prompt",
        "context_management",
        "enable_thinking",
        "include_reasoning",
        "inference_geo",
        "max_tool_calls",
        "num_ctx",
        "prompt_cache_options",
        "provider",
        "reasoning",
        "reasoning_summary",
        "speed",
        "thinking_budget",
        "usage",
        "verbosity",
    }
)


# LiteLLM's own names, which are no parameters. Where its `completion` calls itself (`fallbacks`,
# `model_list`) it should hand on what it was given; releases of 1.108, from 1.108.5 or .6 on, hand
# on a local variable too (search for "drops_unsupported completion_with_fallbacks"). To be taken
# out once LiteLLM 1.109 is the lowest that we take.
LEAKED = frozenset({"drops_unsupported"})

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max", "default"]
_EFFORT_FIELDS = {"effort", "summary", "generate_summary"}


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_effort(value: Any) -> Any:
    """LiteLLM's other spellings: `reasoning` as a whole, and Gemini's word for none."""
    if isinstance(value, dict) and value.keys() <= _EFFORT_FIELDS:
        return _as_effort(value.get("effort"))
    return "none" if value == "disable" else value


class StructuredOutputs(BaseModel):
    """vLLM's `structured_outputs`: exactly one constraint, by its kind's name.

    `structural_tag` is checked where it is read, see `structural_tag`. The two switches ask for
    what is always so here.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    json_: dict[str, Any] | bool | str | None = Field(None, alias="json")
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    structural_tag: dict[str, Any] | str | None = None
    json_object: bool | None = None
    disable_fallback: bool = True
    disable_any_whitespace: bool = True


class ThinkingParam(BaseModel):
    """Anthropic's `thinking`: on, off or as the model likes, and at most how many tokens.

    The other fields say what is shown of a thought and where it may be replayed; here it is shown.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    type: Literal["enabled", "disabled", "adaptive"] = "enabled"
    budget_tokens: int | None = Field(None, ge=0)
    display: str | None = None
    summary: str | None = None
    block_binding: Any = None


class RequestParams(BaseModel):
    """What a chat completion may ask for, in OpenAI's names and vLLM's for the rest."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    logit_bias: dict[Annotated[int, Field(ge=0, strict=False)], float] = {}
    seed: int | None = None
    stop: Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_as_list)] = []
    max_tokens: int | None = Field(None, ge=1)
    n: int = Field(1, ge=1, le=128)
    logprobs: bool | int = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: dict[str, Any] | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: dict[str, Any] | bool | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    logprobs_mode: Literal["constrained", "raw"] = "constrained"
    budget_finish_reason: Literal["length", "stop"] = "length"
    count_only: bool = False
    reasoning_effort: Annotated[Effort | None, BeforeValidator(_as_effort)] = None
    thinking: ThinkingParam | None = None
    prompt_cache_key: str | None = Field(None, min_length=1)
    prompt_repair: bool | None = None
    chat_template_kwargs: dict[str, Any] = {}
    guided_decoding_backend: Annotated[Backend, AfterValidator(check_backend)] | None = None
    tools: list[Any] = []  # what is in them and in the choices is read by `tools`
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool = True
    functions: list[Any] = []
    function_call: str | dict[str, Any] | None = None
    modalities: list[Literal["text"]] | None = None
    echo: Literal[False] = False
    suffix: None = None
    best_of: Literal[1] = 1

    def sampling(self, defaults: SamplingDefaults) -> SamplingParams:
        """How to draw tokens: the caller's word, else the model's own, else the API's default."""
        temperature = _first(self.temperature, defaults.temperature, 1.0)
        top_p = _first(self.top_p, defaults.top_p, 1.0)
        is_greedy = temperature < _MIN_TEMPERATURE or top_p == 0
        return SamplingParams(
            temperature=0.0 if is_greedy else temperature,
            top_p=1.0 if is_greedy else top_p,
            top_k=max(_first(self.top_k, defaults.top_k, 0), 0),
            min_p=_first(self.min_p, defaults.min_p, 0.0),
            repetition_penalty=_first(self.repetition_penalty, defaults.repetition_penalty, 1.0),
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=tuple(self.logit_bias.items()),
            seed=self.seed,
        )

    @property
    def num_top_logprobs(self) -> int | None:
        """How many alternatives to report per token; `None` when no logprobs are wanted.

        Raises:
            UnsupportedParameterError: `top_logprobs` without `logprobs`.
        """
        if not isinstance(self.logprobs, bool):  # the older text completion's count
            return self.logprobs
        if self.logprobs:
            return self.top_logprobs or 0
        if self.top_logprobs:
            raise UnsupportedParameterError("top_logprobs needs logprobs=True beside it")
        return None


def parse_params(
    given: Mapping[str, Any], *, drops_unsupported: bool, takes_hints: bool = False
) -> RequestParams:
    """Check the parameters of one request.

    Args:
        given: LiteLLM's `optional_params`; `extra_body` in it is opened.
        drops_unsupported: LiteLLM's `drop_params`: leave out what we do not know instead.
        takes_hints: leave out what cannot change what the answer must be.

    Raises:
        UnsupportedParameterError: a parameter that we do not honour, or a value out of range.
    """
    params = {**given, **(given.get("extra_body") or {})}
    params.pop("extra_body", None)
    dropped = HARMLESS | LEAKED
    params = {k: v for k, v in params.items() if v is not None and k not in dropped}
    if takes_hints:
        params = {k: v for k, v in _understood(params).items() if k not in HINTS}
    if drops_unsupported:
        params = {k: v for k, v in params.items() if k in RequestParams.model_fields}
    try:
        return RequestParams.model_validate(params)
    except ValidationError as error:
        raise UnsupportedParameterError(_explain(error)) from None


def _understood(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with those hints under our names that a model which thinks can follow."""
    own: dict[str, Any] = {}
    if isinstance(is_on := params.get("enable_thinking"), bool):
        own["chat_template_kwargs"] = {
            "enable_thinking": is_on,
            **(params.get("chat_template_kwargs") or {}),
        }
    reasoning = params.get("reasoning")
    if isinstance(reasoning, Mapping) and isinstance(effort := reasoning.get("effort"), str):
        own["reasoning_effort"] = params.get("reasoning_effort", effort)
    return {**params, **own}


def _explain(error: ValidationError) -> str:
    """Every complaint as `name: what was given, what is allowed`."""
    return "; ".join(_explain_one(dict(item)) for item in error.errors())


def _explain_one(item: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if name == "web_search_options":  # what LiteLLM makes of a tool of that type
        return "web_search is a tool that its vendor runs; nothing here searches, leave it out"
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, RequestParams.model_fields, n=1)
        hint = f", did you mean {near[0]!r}" if near else ""
        return f"{name} is not a parameter of mlx models{hint}; drop_params=True leaves it out"
    message = item["msg"][:1].lower() + item["msg"][1:]
    return f"{name}={_shorten(item['input'])}: {message}"


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _first(*values: Any) -> Any:
    """The first value that is not `None`."""
    return next(value for value in values if value is not None)
