"""A second door: DSPy's own engine contract over the same engines, with no call to LiteLLM.

    lm = dspy.LM("mlx/smollm2-135m", engine=MLXEngine(), async_engine=AsyncMLXEngine())

An engine object is a handle: options and nothing else. The weights are in the process-wide registry
that `mlx/` names share on both doors, so handles are copied, pickled and saved with a program at no
cost. DSPy owns its cache, retries, `n` and history; here one request becomes one response.
"""

from litellm_mlx.dspy.engine import AsyncMLXEngine, MLXEngine

__all__ = ["AsyncMLXEngine", "MLXEngine"]
