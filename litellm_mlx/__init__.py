"""Local MLX models behind LiteLLM's `mlx/` prefix, with structured output that is enforced.

Importing the package registers the provider and does nothing else: no thread, no model, no MLX.
"""

from __future__ import annotations

from importlib.metadata import version as _version

from litellm_mlx.grammar.explain import KeywordReport, SchemaReport, explain_schema
from litellm_mlx.loading import load, load_cache, save_cache, unload, unload_all
from litellm_mlx.partial import apartial_objects, partial_objects
from litellm_mlx.register import handler, register
from litellm_mlx.translate.response_format import response_format

__all__ = [
    "KeywordReport",
    "SchemaReport",
    "__version__",
    "apartial_objects",
    "explain_schema",
    "handler",
    "load",
    "load_cache",
    "partial_objects",
    "register",
    "response_format",
    "save_cache",
    "unload",
    "unload_all",
]

__version__ = _version("litellm-mlx")

register()
