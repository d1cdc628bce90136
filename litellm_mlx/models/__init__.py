"""From a model's name to weights, tokenizer and what the machine can do with them."""
