"""Put the provider into LiteLLM, once, safely twice.

Four things make `mlx/` a full citizen: the handler in `litellm.custom_provider_map`, LiteLLM's
own bookkeeping of provider names, the capabilities that clients read before they call, and what
`litellm_mends` has LiteLLM do otherwise for `mlx/` names.
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

from litellm_mlx.errors import LiteLLMMLXError
from litellm_mlx.litellm_mends import Function, mend_litellm, wraps
from litellm_mlx.models.facts import stated_context
from litellm_mlx.models.names import Alias, aliases, parse_model_name
from litellm_mlx.network import served
from litellm_mlx.provider import MLXProvider
from litellm_mlx.translate.response import PROVIDER

_RULE_NAME = "litellm-mlx"

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
    mend_litellm()
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


@wraps(litellm.utils, "_get_model_info_from_generalization")
def _answer_for_mlx_names(original: Function, *args: Any, **kwargs: Any) -> Any:
    """Make LiteLLM ask us about `mlx/` names that its price map does not list.

    The rule above should suffice, but LiteLLM forgets rules whenever it reloads its price map, and
    passes over them for a name that collides with a listed model (`mlx/gpt-4o-mini`). Both go
    through this one function, which runs after the exact look-ups have missed. Tested against
    1.106.2; where a release has renamed it, the rule is all there is.
    """
    if kwargs.get("custom_llm_provider") != PROVIDER:
        return original(*args, **kwargs)
    bare = str(kwargs["model"]).removeprefix(f"{PROVIDER}/")
    return f"{PROVIDER}/{bare}", {**model_info(bare), "litellm_provider": PROVIDER}


def _shutdown() -> None:
    """Stop the engines while the interpreter is whole: MLX must not run into its teardown."""
    threads = sys.modules.get("litellm_mlx.engine.thread")
    if threads is not None:
        threads.park_all()
