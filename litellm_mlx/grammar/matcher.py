"""llguidance's matchers: what they are made of, on which stack, and what stops them.

Owns the engine's options and the ways in which it can fail. What a schema is changed to so that
it does not fail is `tiers`; what callers get to read is `compiler`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from litellm_mlx.grammar.json_schema import Schema
    from litellm_mlx.grammar.vocabulary import Vocabulary

T = TypeVar("T")

# The separators of json.dumps, and no other whitespace: what DSPy's prompts show, what models
# have seen most, and nothing that can run away.
JSON_OPTIONS: dict[str, Any] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    # No \uXXXX: the engine takes "\u0061" for another key than the property "a" (1.9.1).
    "json_allowed_escapes": 'nrbtf\\"',
}
# 1,000 references in a chain of objects overflow 8 MB, 300 do not (llguidance 1.9.1, x86-64): up to
# 27 KB each. A schema of few parts cannot nest that deep; DSPy's have 10 to 60.
MAX_SHALLOW_PARTS = 200
DEEP_STACK_BYTES = 512 * 2**20
MAX_REFS = 15_000

# How llguidance 1.9.1 says that a limit of its own was met, rather than a keyword it has not.
_BUDGET_MESSAGES = ("schema too large", "too big", "fuel exhausted", "grammar size")

_STACK_SIZE_LOCK = threading.Lock()  # the size is a setting of the whole process


class NotCompiledError(Exception):
    """The engine does not enforce this grammar as a whole; `reason` is in its words."""

    def __init__(self, reason: str) -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.reason = reason

    @property
    def is_over_budget(self) -> bool:
        """Whether a limit of size or work was met."""
        return any(message in self.reason for message in _BUDGET_MESSAGES)

    @property
    def is_unsatisfiable(self) -> bool:
        """Whether the engine says that no text satisfies the grammar."""
        return self.reason.startswith("Unsatisfiable")


class Compiled(NamedTuple):
    """A matcher, and its bitmask at the beginning as the engine gives it: int32, little-endian."""

    matcher: LLMatcher
    first_mask: bytes


def schema_matcher(schema: Schema, vocabulary: Vocabulary) -> Compiled:
    """Compile a narrowed JSON schema. Any thread may call; most of the work drops the GIL.

    Raises:
        NotCompiledError: the engine does not enforce all of it; a warning counts.
    """
    grammar = json_grammar(schema)
    return with_stack_for(grammar, lambda: grammar_matcher(grammar, vocabulary))


def check_schema(schema: Schema) -> None:
    """Ask the engine whether it can read a narrowed JSON schema; a quarter of a matcher's cost.

    Raises:
        NotCompiledError: it cannot, or not all of it.
    """
    from llguidance import LLMatcher

    grammar = json_grammar(schema)

    def read() -> list[str]:
        return LLMatcher.validate_grammar_with_warnings(grammar)[1]

    problems = with_stack_for(grammar, read)
    if problems:
        raise NotCompiledError("; ".join(problems))


def leaves_a_name(pattern: str, names: Iterable[str]) -> bool:
    """Whether the engine can write a name that a regex matches and that is none of some others.

    True for a regex that it does not take. Cost: 0.5 ms.
    """
    from llguidance import LLMatcher

    from litellm_mlx.grammar.vocabulary import byte_vocabulary

    schema: Schema = {
        "type": "object",
        "properties": dict.fromkeys(names, False),
        "patternProperties": {pattern: True},
        "additionalProperties": False,
    }
    tokenizer = byte_vocabulary().ll_tokenizer
    matcher = LLMatcher(tokenizer, json_grammar(schema), log_level=0)
    start = tokenizer.tokenize_bytes(b'{"')
    return matcher.is_error() or matcher.try_consume_tokens(start) == len(start)


def json_grammar(schema: Schema) -> str:
    """What `LLMatcher.grammar_from_json_schema` gives, 28 us sooner.

    That one reads the schema from JSON and writes it again.
    """
    if schema is not False:
        schema = {**({} if schema is True else schema), "x-guidance": JSON_OPTIONS}
    return json.dumps({"grammars": [{"name": "json_schema", "json_schema": schema}]})


def grammar_matcher(grammar: str, vocabulary: Vocabulary) -> Compiled:
    """Compile what llguidance's `grammar_from_...` functions give.

    Raises:
        NotCompiledError: see `schema_matcher`.
    """
    from llguidance import LLMatcher

    matcher = LLMatcher(vocabulary.ll_tokenizer, grammar, log_level=0)
    problems = [matcher.get_error()] if matcher.is_error() else matcher.get_grammar_warnings()
    if problems:
        raise NotCompiledError("; ".join(problems))
    first_mask = matcher.compute_bitmask()  # the slowest one, and copies inherit its work
    if matcher.is_error():
        raise NotCompiledError(matcher.get_error())
    return Compiled(matcher, first_mask)


def with_stack_for(source: str, work: Callable[[], T]) -> T:
    """Run `work`, which makes the engine read `source`, on a stack that is large enough.

    llguidance 1.9.1 follows `$ref` by recursion, and a chain of 1,000 references overflows the
    usual 8 MB, which ends the process.

    Raises:
        NotCompiledError: no stack is large enough.
    """
    if source.count("{") <= MAX_SHALLOW_PARTS:
        return work()
    if source.count("$ref") > MAX_REFS:
        raise NotCompiledError(f"more than {MAX_REFS:,} `$ref`")
    return _on_deep_stack(work)


def _on_deep_stack(work: Callable[[], T]) -> T:
    """Run `work` on a thread of its own; only virtual memory is taken until it is used."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    thread = threading.Thread(target=run, name="litellm-mlx-compile", daemon=True)
    with _STACK_SIZE_LOCK:
        usual_bytes = threading.stack_size(DEEP_STACK_BYTES)
        try:
            thread.start()
        finally:
            threading.stack_size(usual_bytes)
    thread.join()
    return result.result()
