"""What LiteLLM's proxy is told: the models by name, our provider, and a key.

The proxy itself, its routes, keys and limits are LiteLLM's; nothing here serves a request.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from litellm_mlx.models.facts import stated_context
from litellm_mlx.models.names import aliases, parse_model_name
from litellm_mlx.network import Served

KEY_VARIABLE = "LITELLM_MASTER_KEY"
HANDLER = "litellm_mlx.proxy.handler"
_KEY_BYTES = 32
# The OpenAI SDK sends it with every embedding, and LiteLLM refuses it for custom ones.
_DROPPED = ("encoding_format",)
# A limit on tools that OpenAI runs, of which there are none; LiteLLM refuses it (1.110).
_DROPPED_HINTS = ("max_tool_calls",)


def proxy_config(models: Sequence[str], *, is_strict: bool = False) -> dict[str, Any]:
    """The configuration that lists these models, each under the name that it is given.

    Args:
        models: without the `mlx/` prefix, or `NAME=MODEL` to call a model NAME.
        is_strict: hints are refused, see `EngineConfig.client_hints`.

    Raises:
        ModelNotFoundError, UnsupportedParameterError: see `parse_model_name`.
    """
    dropped = _DROPPED if is_strict else (*_DROPPED, *_DROPPED_HINTS)
    return {
        "model_list": [_entry(*each, dropped) for each in deployments(models).items()],
        "litellm_settings": {
            "custom_provider_map": [{"provider": "mlx", "custom_handler": HANDLER}],
        },
        "general_settings": {
            "master_key": f"os.environ/{KEY_VARIABLE}",
            # Else an answer that nobody waits for is generated to its end.
            "cancel_on_disconnect": True,
        },
    }


def write_config(config: Mapping[str, Any], path: Path) -> None:
    """Write a configuration as the proxy reads it."""
    path.write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")


def ensure_key(environ: dict[str, str] | os._Environ[str]) -> str | None:
    """See to it that there is a master key; returns it where it had to be made up."""
    if environ.get(KEY_VARIABLE):
        return None
    key = environ[KEY_VARIABLE] = f"sk-{secrets.token_urlsafe(_KEY_BYTES)}"
    return key


def named(model: str) -> tuple[str, str]:
    """Name and model of `NAME=MODEL`, or of a model that goes by its own name."""
    name, equals, target = model.partition("=")
    if equals and "?" not in name:
        return name, target.removeprefix("mlx/")
    bare = model.removeprefix("mlx/")
    return bare, bare


def deployments(models: Sequence[str]) -> dict[str, Served]:
    """What LiteLLM calls each model: its name, or a number where that is a path of this machine.

    Raises:
        ModelNotFoundError, UnsupportedParameterError: see `parse_model_name`.
    """
    found: dict[str, Served] = {}
    for number, (name, model) in enumerate(map(named, models), 1):
        spec = parse_model_name(model)
        is_path = spec.source in ("directory", "gguf") or spec.adapter is not None
        found[f"served-{number}" if is_path else model] = Served(name, model)
    return found


def _entry(deployment: str, served: Served, dropped: Sequence[str]) -> dict[str, Any]:
    spec = parse_model_name(served.model)
    alias = aliases().get(served.model.lower())
    info: dict[str, Any] = {"mode": "embedding" if spec.embeds else "chat"}
    if (context_tokens := stated_context(spec)) is not None:
        # LiteLLM would look up what is left out under the name, which another vendor may have.
        info |= dict.fromkeys(("max_tokens", "max_input_tokens"), context_tokens)
        if not spec.embeds:
            info["max_output_tokens"] = context_tokens
    if alias is not None:
        info["supports_reasoning"] = alias.thinks
    return {
        "model_name": served.name,
        "litellm_params": {
            "model": f"mlx/{deployment}",
            "additional_drop_params": list(dropped),
        },
        "model_info": info,
    }
