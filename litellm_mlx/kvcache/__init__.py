"""Layer caches of a batch, and later the prefix cache."""
