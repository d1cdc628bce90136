"""A constraint backend: choices as a trie over the model's tokens.

Run:    LITELLM_LOCAL_MODEL_COST_MAP=True python examples/extensions/choice_backend.py
Prints: one of three answers, and why a regex is refused.

A backend says which tokens may come; all else is the package's. This one is exact and says so.
"""

import json
import sys
from collections.abc import Iterator

import litellm

from litellm_mlx.extend import register_backend
from litellm_mlx.grammar.vocabulary import Vocabulary
from litellm_mlx.types import Constraint


class Choices:
    """The automaton of a list of texts; a state is the text so far."""

    start = b""

    def __init__(self, constraint: Constraint, vocabulary: Vocabulary) -> None:
        if constraint.kind != "choice":
            raise ValueError("it knows choices only")
        self.choices = [choice.encode() for choice in json.loads(constraint.source)]
        self.token_bytes = vocabulary.token_bytes
        self.ids = {self.token_bytes(i): i for i in range(vocabulary.tokenizer_vocab_size)}

    def allowed(self, state: bytes) -> Iterator[int]:
        """Every token that some choice goes on with."""
        for choice in self.choices:
            rest = choice.removeprefix(state) if choice.startswith(state) else b""
            starts = (rest[:end] for end in range(1, len(rest) + 1))
            yield from (self.ids[start] for start in starts if start in self.ids)

    def advance(self, state: bytes, token_id: int) -> bytes:
        """The text with one token more."""
        return state + self.token_bytes(token_id)

    def is_accepting(self, state: bytes) -> bool:
        """A choice is complete."""
        return state in self.choices


register_backend("trie", Choices, is_exact=True)

if __name__ == "__main__":
    model = sys.argv[1] if len(sys.argv) > 1 else "mlx/smollm2-135m"
    messages = [{"role": "user", "content": "Which colour has the sky?"}]
    options = {"model": model, "messages": messages, "guided_decoding_backend": "trie"}
    answer = litellm.completion(guided_choice=["red", "green", "blue"], **options)
    print(answer.choices[0].message.content)
    try:
        litellm.completion(guided_regex="[a-z]+", **options)
    except litellm.BadRequestError as error:
        print(error)
