"""`python -m litellm_mlx` is the command `litellm-mlx`."""

from litellm_mlx.cli import main

main()
