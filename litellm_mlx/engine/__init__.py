"""One model's continuous batch on its own thread."""
