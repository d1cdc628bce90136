"""The instance that a LiteLLM proxy's `custom_provider_map` names: `litellm_mlx.proxy.handler`."""

from litellm_mlx.register import handler

__all__ = ["handler"]
