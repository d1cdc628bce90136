"""LiteLLM's proxy with our models in it: its configuration, its start, what stands before it."""
