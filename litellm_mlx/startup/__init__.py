"""Makes LiteLLM know `mlx/` without an import in the program: in an environment, or for one run."""
