"""Layer caches of a batch, the passes that fill them, and what is kept for later requests."""
