"""LiteLLM's arguments in, LiteLLM's answers out."""
