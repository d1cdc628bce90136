"""Put the provider into LiteLLM, once, safely twice.

Three things make `mlx/` a full citizen: the handler in `litellm.custom_provider_map`, LiteLLM's
own bookkeeping of provider names, and the capabilities that clients read before they call.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Mapping
from typing import Any

import litellm
import litellm.utils
from litellm.litellm_core_utils.fallback_generalizations import (
    get_fallback_generalization_rules,
    set_fallback_generalizations,
)

from litellm_mlx.models.names import aliases
from litellm_mlx.provider import MLXProvider
from litellm_mlx.translate.response import PROVIDER

_RULE_NAME = "litellm-mlx"

# What every `mlx/` model can do. A key that is left out would be read from another provider's
# model of the same bare name (gpt-4o-mini sees images), so what is not so is said too. Reasoning
# is not advertised: DSPy would send `reasoning_effort`, which LiteLLM refuses for us.
CAPABILITIES: Mapping[str, Any] = {
    "mode": "chat",
    "input_cost_per_token": 0.0,
    "output_cost_per_token": 0.0,
    "supports_response_schema": True,
    "supports_function_calling": True,
    "supports_system_messages": True,
    "supports_assistant_prefill": True,
    "supports_tool_choice": False,
    "supports_parallel_function_calling": False,
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
    atexit.unregister(_shutdown)
    atexit.register(_shutdown)


def model_info(name: str) -> dict[str, Any]:
    """What LiteLLM shall believe of model `name` (without prefix), context included if known."""
    context_tokens = _context_tokens(name)
    if context_tokens is None:
        return dict(CAPABILITIES)
    return {
        **CAPABILITIES,
        "max_tokens": context_tokens,
        "max_input_tokens": context_tokens,
        "max_output_tokens": context_tokens,
    }


def _context_tokens(name: str) -> int | None:
    """From the loaded model, else from the alias; `None` for a name that means nothing yet."""
    registry = handler.registry_if_used
    loaded = registry.loaded_context_tokens(name) if registry is not None else None
    if loaded is not None:
        return loaded
    alias = aliases().get(name)
    return alias.context_tokens if alias is not None else None


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


def _shutdown() -> None:
    """Stop the engines while the interpreter is whole: MLX must not run into its teardown."""
    engine_module = sys.modules.get("litellm_mlx.engine.engine")
    if engine_module is not None:
        engine_module.park_all()
