"""Put the provider into LiteLLM, once, safely twice.

Six things make `mlx/` a full citizen: the handler in `litellm.custom_provider_map`, LiteLLM's
own bookkeeping of provider names, the capabilities that clients read before they call,
parameters, thinking's above all, that LiteLLM passes to custom providers, and as they were, only
when told to, a look at requests to the Responses API before LiteLLM makes chat completions of
them, and a text in the last chunk of a text completion's stream.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Mapping
from typing import Any

import litellm
import litellm.main
import litellm.utils
from litellm.litellm_core_utils.fallback_generalizations import (
    get_fallback_generalization_rules,
    set_fallback_generalizations,
)
from litellm.llms.anthropic.pass_through.adapters import transformation as anthropic_messages
from litellm.responses.litellm_completion_transformation import handler as responses_bridge

from litellm_mlx.errors import LiteLLMMLXError, UnsupportedParameterError
from litellm_mlx.models.facts import stated_context
from litellm_mlx.models.names import Alias, aliases, parse_model_name
from litellm_mlx.network import has_database, served
from litellm_mlx.provider import MLXProvider
from litellm_mlx.translate.response import PROVIDER, to_litellm_error
from litellm_mlx.translate.responses_request import check_responses_request

_RULE_NAME = "litellm-mlx"
_HINTS = ("reasoning_effort", "thinking", "verbosity", "context_management")

# What every `mlx/` model can do. A key that is left out would be read from another provider's
# model of the same bare name (gpt-4o-mini sees images), so what is not so is said too. Reasoning
# is advertised only where it is known of the model, see `model_info`.
CAPABILITIES: Mapping[str, Any] = {
    "mode": "chat",
    "input_cost_per_token": 0.0,
    "output_cost_per_token": 0.0,
    "supports_response_schema": True,
    "supports_function_calling": True,
    "supports_system_messages": True,
    "supports_assistant_prefill": True,
    "supports_tool_choice": True,
    "supports_parallel_function_calling": True,
    "supports_prompt_caching": False,
    "supports_reasoning": False,
    "supports_vision": False,
    "supports_pdf_input": False,
    "supports_audio_input": False,
    "supports_audio_output": False,
    "supports_video_input": False,
    "supports_web_search": False,
    "supports_url_context": False,
    "supports_computer_use": False,
    "supports_embedding_image_input": False,
    "supports_native_streaming": True,
}

handler = MLXProvider()


def register() -> None:
    """Register the provider prefix `mlx/` with LiteLLM; a second call changes nothing.

    Appends to LiteLLM's lists and never replaces them, so other custom providers stay.
    """
    known = litellm.custom_provider_map
    if not any(entry["custom_handler"] is handler for entry in known):
        known.append({"provider": PROVIDER, "custom_handler": handler})
    litellm.utils.custom_llm_setup()
    _add_capability_rule()
    _answer_for_mlx_names()
    _let_hints_through()
    _keep_anthropics_thinking()
    _refuse_what_responses_would_lose()
    _give_every_completion_chunk_text()
    atexit.unregister(_shutdown)
    atexit.register(_shutdown)


def model_info(name: str) -> dict[str, Any]:
    """What LiteLLM shall believe of model `name` (without prefix).

    Its context and whether it thinks come from the loaded model, else from the alias; else its
    files on this disk tell its context, and of a name that means nothing yet neither is known.
    """
    registry = handler.registry_if_used
    name = served(name).model
    known = (registry.loaded(name) if registry is not None else None) or aliases().get(name)
    if known is None:
        return {**CAPABILITIES, **_stated_limits(name)}
    if isinstance(known, Alias) and known.embeds:
        return {
            **{key: False if value is True else value for key, value in CAPABILITIES.items()},
            "mode": "embedding",
            "max_tokens": known.context_tokens,
            "max_input_tokens": known.context_tokens,
        }
    return {
        **CAPABILITIES,
        "max_tokens": known.context_tokens,
        "max_input_tokens": known.context_tokens,
        "max_output_tokens": known.context_tokens,
        "supports_reasoning": known.thinks,
    }


def _stated_limits(name: str) -> dict[str, int]:
    """What a model's files say of its context, where it is not loaded."""
    try:
        context_tokens = stated_context(parse_model_name(name))
    except LiteLLMMLXError:
        return {}
    if context_tokens is None:
        return {}
    return dict.fromkeys(("max_tokens", "max_input_tokens", "max_output_tokens"), context_tokens)


def _add_capability_rule() -> None:
    """LiteLLM's own declarative way to describe models that its price map does not list."""
    rules = get_fallback_generalization_rules()
    if not any(isinstance(rule, dict) and rule.get("name") == _RULE_NAME for rule in rules):
        rule = {"name": _RULE_NAME, "pattern": f"^{PROVIDER}/", "model_info": dict(CAPABILITIES)}
        set_fallback_generalizations([*rules, rule])


def _answer_for_mlx_names() -> None:
    """Make LiteLLM ask us about `mlx/` names that its price map does not list.

    The rule above should suffice, but LiteLLM forgets rules whenever it reloads its price map, and
    passes over them for a name that collides with a listed model (`mlx/gpt-4o-mini`). Both go
    through this one function, which runs after the exact look-ups have missed. Tested against
    1.106.2; where a release has renamed it, the rule is all there is.
    """
    name = "_get_model_info_from_generalization"
    original = getattr(litellm.utils, name, None)
    if original is None or getattr(original, "knows_mlx", False):
        return

    def answer(*args: Any, **kwargs: Any) -> Any:
        provider = kwargs.get("custom_llm_provider")
        if provider != PROVIDER:
            return original(*args, **kwargs)
        bare = str(kwargs["model"]).removeprefix(f"{PROVIDER}/")
        return f"{PROVIDER}/{bare}", {**model_info(bare), "litellm_provider": PROVIDER}

    answer.knows_mlx = True  # type: ignore[attr-defined]  # marks it, so that it is wrapped once
    setattr(litellm.utils, name, answer)


def _let_hints_through() -> None:
    """Have LiteLLM pass on what it refuses for custom providers and we have our own word on.

    A caller can ask for it himself (`allowed_openai_params`), but DSPy, the Responses API and
    Anthropic's messages give him no place to. LiteLLM looks this function up at every call; tested
    against 1.106.2, and where a release has moved it, the caller's way remains.
    """
    name = "get_optional_params"
    original = getattr(litellm.main, name, None)
    if original is None or getattr(original, "knows_mlx", False):
        return

    def get_optional_params(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("custom_llm_provider") == PROVIDER:
            allowed = kwargs.get("allowed_openai_params") or []
            kwargs["allowed_openai_params"] = [*allowed, *_HINTS]
        return original(*args, **kwargs)

    get_optional_params.knows_mlx = True  # type: ignore[attr-defined]  # so that it is wrapped once
    setattr(litellm.main, name, get_optional_params)


def _refuse_what_responses_would_lose() -> None:
    """Look at a request to the Responses API while it is one.

    LiteLLM makes a chat completion of it, and a history by id, tools of OpenAI's and prompts by id
    are gone by the time that a provider sees it; no hook of LiteLLM's comes before (1.106 to 1.110,
    search its issues for "previous_response_id custom provider"). With its proxy's database LiteLLM
    knows histories itself. Where a release has moved the function, things are as they were.
    """
    handler_class = getattr(responses_bridge, "LiteLLMCompletionTransformationHandler", None)
    original = getattr(handler_class, "response_api_handler", None)
    if original is None or getattr(original, "knows_mlx", False):
        return

    def response_api_handler(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("custom_llm_provider") == PROVIDER:
            request = dict(kwargs.get("responses_api_request") or {})
            if has_database() and kwargs.get("_is_async"):
                request.pop("previous_response_id", None)
            drops_tools = bool(litellm.drop_params or kwargs.get("drop_params"))
            try:
                check_responses_request(request, kwargs.get("input"), drops_tools=drops_tools)
            except UnsupportedParameterError as error:
                raise to_litellm_error(error, str(kwargs.get("model"))) from error
        return original(*args, **kwargs)

    response_api_handler.knows_mlx = True  # type: ignore[attr-defined]  # so that it is wrapped once
    setattr(handler_class, "response_api_handler", response_api_handler)  # noqa: B010  # for mypy


def _keep_anthropics_thinking() -> None:
    """Have LiteLLM hand on `thinking` of Anthropic's messages, as it does to Claude's providers.

    To all others it sends the nearest `reasoning_effort`: an exact budget is lost, and "adaptive",
    which leaves the choice to the model, becomes a demand (1.106 to 1.110; search its issues for
    "adaptive thinking reasoning_effort medium"). Where a release has moved the function, things are
    as LiteLLM has them.
    """
    name = "_translate_thinking_to_openai"
    adapter = getattr(anthropic_messages, "LiteLLMAnthropicMessagesAdapter", None)
    original = getattr(adapter, name, None)
    if original is None or getattr(original, "knows_mlx", False):
        return

    def translate(adapter: Any, *args: Any, **kwargs: Any) -> None:
        request = kwargs.get("anthropic_message_request") or {}
        thinking = request.get("thinking")
        if kwargs.get("custom_llm_provider") != PROVIDER or not isinstance(thinking, dict):
            original(adapter, *args, **kwargs)
            return
        kwargs["new_kwargs"]["thinking"] = thinking
        effort = (request.get("output_config") or {}).get("effort")
        if thinking.get("type") == "adaptive" and effort is not None:
            kwargs["new_kwargs"]["reasoning_effort"] = effort

    translate.knows_mlx = True  # type: ignore[attr-defined]  # so that it is wrapped once
    setattr(adapter, name, translate)


def _give_every_completion_chunk_text() -> None:
    """Have each chunk of a text completion's stream hold a string, as OpenAI's do.

    LiteLLM makes the last chunk of a stream itself, with a delta whose content is `None`, and
    copies that (BerriAI/litellm#11158); clients that join the texts break. Tested against 1.106.2;
    it ends when LiteLLM writes "" there.
    """
    name = "convert_to_text_completion_object"
    wrapper = getattr(litellm.utils, "TextCompletionStreamWrapper", None)
    original = getattr(wrapper, name, None)
    if original is None or getattr(original, "knows_mlx", False):
        return

    def convert(self: Any, chunk: Any) -> Any:
        converted = original(self, chunk=chunk)
        names = (self.custom_llm_provider, str(self.model).partition("/")[0])
        for choice in converted.choices if PROVIDER in names else ():
            choice.text = choice.text or ""
        return converted

    convert.knows_mlx = True  # type: ignore[attr-defined]  # so that it is wrapped once
    setattr(wrapper, name, convert)


def _shutdown() -> None:
    """Stop the engines while the interpreter is whole: MLX must not run into its teardown."""
    threads = sys.modules.get("litellm_mlx.engine.thread")
    if threads is not None:
        threads.park_all()
