"""Compiles a constraint and a vocabulary into an index: the Outlines side of the package.

Owns the choice of backend, its options and what its errors are called here. Keeping indexes is
`index_cache`; what a schema is narrowed to beforehand is `json_schema`.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.core_support import refuse_unsupported
from litellm_mlx.grammar.guide import CoreGuide, Guide, LimitedGuide, LLGuide
from litellm_mlx.grammar.json_schema import narrow_schema
from litellm_mlx.grammar.metaschema import check_is_json_schema
from litellm_mlx.grammar.nesting_limit import nesting_limit
from litellm_mlx.grammar.number_limit import number_limit
from litellm_mlx.types import Constraint, ConstraintKind

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from litellm_mlx.grammar.vocabulary import Vocabulary

T = TypeVar("T")

# The separators of json.dumps, and no other whitespace: what DSPy's prompts show, what models
# have seen most, and nothing that can run away.
JSON_OPTIONS: dict[str, Any] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
# 1,000 references in a chain of objects overflow 8 MB, 300 do not (llguidance 1.9.1, x86-64): up to
# 27 KB each. A schema of few parts cannot nest that deep; DSPy's have 10 to 60.
MAX_SHALLOW_PARTS = 200
DEEP_STACK_BYTES = 512 * 2**20
MAX_REFS = 15_000

MAX_REASON = 300  # characters of an engine's message that a caller gets to read
_STACK_SIZE_LOCK = threading.Lock()  # the size is a setting of the whole process
_WHITESPACE = "\ue000"  # stands for whitespace in an outlines_core regex until it is placed


class Index(Protocol):
    """A compiled constraint; immutable, shared by threads and sequences."""

    @property
    def compile_s(self) -> float:
        """Seconds that compiling took."""
        ...

    def guide(self) -> Guide:
        """Give a new cursor at the beginning of the text."""
        ...


@dataclass(frozen=True, slots=True)
class LLIndex:
    """Index of the llguidance backend: a matcher that is copied and never advanced."""

    matcher: LLMatcher
    vocabulary: Vocabulary
    kind: ConstraintKind
    compile_s: float

    def guide(self) -> Guide:
        """Give a new cursor; about 30 us (2 cores of an AMD EPYC, 2026-11-21)."""
        may_steer = self.kind == "grammar"
        guide = LLGuide(self.matcher.deep_copy(), self.vocabulary, may_steer=may_steer)
        return _limited(guide, self.vocabulary, self.kind)


@dataclass(frozen=True, slots=True)
class CoreIndex:
    """Index of the outlines_core backend, which is immutable itself."""

    index: Any
    vocabulary: Vocabulary
    kind: ConstraintKind
    compile_s: float

    def guide(self) -> Guide:
        """Give a new cursor."""
        import outlines_core

        guide = CoreGuide(outlines_core.Guide(self.index), self.vocabulary)
        return _limited(guide, self.vocabulary, self.kind)


def compile_constraint(constraint: Constraint, vocabulary: Vocabulary) -> Index:
    """Compile a constraint for one vocabulary.

    Any thread may call it; it holds no lock, and llguidance drops the GIL.

    Raises:
        ConstraintError: the backend cannot compile it; the message names the keyword.

    Cost: about 1 ms with llguidance; seconds, and memory without bound, with outlines_core.
    """
    if constraint.kind == "json_schema":
        check_is_json_schema(json.loads(constraint.source))
        number_limit(vocabulary)  # once per vocabulary, here rather than between two tokens
        nesting_limit(vocabulary)
    if constraint.backend == "outlines_core":
        return _compile_core(constraint, vocabulary)
    return _compile_llguidance(constraint, vocabulary)


def _limited(guide: Guide, vocabulary: Vocabulary, kind: str) -> Guide:
    return LimitedGuide(guide, vocabulary) if kind == "json_schema" else guide


def _compile_llguidance(constraint: Constraint, vocabulary: Vocabulary) -> Index:
    start = time.monotonic()
    if constraint.source.count("{") <= MAX_SHALLOW_PARTS:
        matcher = _matcher(constraint, vocabulary)
    elif constraint.source.count('"$ref"') > MAX_REFS:
        raise _refused(constraint, f"more than {MAX_REFS:,} `$ref`")
    else:
        matcher = _on_deep_stack(lambda: _matcher(constraint, vocabulary))
    return LLIndex(matcher, vocabulary, constraint.kind, time.monotonic() - start)


def _matcher(constraint: Constraint, vocabulary: Vocabulary) -> LLMatcher:
    from llguidance import LLMatcher

    try:
        grammar = _llguidance_grammar(constraint)
    except ValueError as error:
        raise _refused(constraint, str(error)) from error
    matcher = LLMatcher(vocabulary.ll_tokenizer, grammar, log_level=0)
    problems = [matcher.get_error()] if matcher.is_error() else matcher.get_grammar_warnings()
    if not problems:
        matcher.compute_bitmask()  # the first one is the slowest, and copies inherit its work
        problems = [matcher.get_error()] if matcher.is_error() else []
    if problems:
        raise _refused(constraint, "; ".join(problems))
    return matcher


def _on_deep_stack(work: Callable[[], T]) -> T:
    """Run `work` on a thread of its own with a stack for any schema that is not too large.

    llguidance 1.9.1 follows `$ref` by recursion, and a chain of 1,000 references overflows the
    usual 8 MB, which ends the process. Only virtual memory is taken until it is used.
    """
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


def _llguidance_grammar(constraint: Constraint) -> str:
    from llguidance import LLMatcher, grammar_from

    if constraint.kind == "json_schema":
        schema = narrow_schema(json.loads(constraint.source))
        text = json.dumps({} if schema is True else schema)
        return LLMatcher.grammar_from_json_schema(text, overrides=JSON_OPTIONS)  # type: ignore[arg-type]
    if constraint.kind == "choice":
        # grammar_from("choice") writes surrogate pairs, which the Lark reader does not join.
        choices = (json.dumps(c, ensure_ascii=False) for c in json.loads(constraint.source))
        return LLMatcher.grammar_from_lark("start: " + " | ".join(choices))
    return grammar_from(constraint.kind, constraint.source)


def _compile_core(constraint: Constraint, vocabulary: Vocabulary) -> Index:
    import outlines_core

    start = time.monotonic()
    try:
        regex = _core_regex(constraint)
        core_vocabulary = vocabulary.derived("outlines_core", _core_vocabulary)
        index = outlines_core.Index(regex, core_vocabulary)
    except ValueError as error:
        raise _refused(constraint, str(error)) from error
    return CoreIndex(index, vocabulary, constraint.kind, time.monotonic() - start)


def _core_regex(constraint: Constraint) -> str:
    from outlines_core.json_schema import build_regex_from_schema

    if constraint.kind == "regex":
        return constraint.source
    if constraint.kind == "choice":
        return "|".join(f"(?:{re.escape(choice)})" for choice in json.loads(constraint.source))
    if constraint.kind == "grammar":
        raise ConstraintError("outlines_core has no grammars; choose the backend llguidance")
    schema = narrow_schema(json.loads(constraint.source))
    text = json.dumps(refuse_unsupported(schema), ensure_ascii=False)
    if _WHITESPACE in text:
        raise ConstraintError("outlines_core cannot serve U+E000; choose the backend llguidance")
    regex = build_regex_from_schema(text, _WHITESPACE)
    for after in ":,":
        regex = regex.replace(after + _WHITESPACE, after + " ")
    return str(regex).replace(_WHITESPACE, "")


def _core_vocabulary(vocabulary: Vocabulary) -> Any:
    """Make outlines_core's vocabulary from bytes, so that tokens of half a character work."""
    import outlines_core

    core = outlines_core.Vocabulary(vocabulary.stop_token_ids[0], {})
    unusable = frozenset(vocabulary.control_token_ids)
    for token_id in range(vocabulary.tokenizer_vocab_size):
        token = vocabulary.token_bytes(token_id)
        if token and token_id not in unusable:
            core.insert(token, token_id)
    return core


def _refused(constraint: Constraint, reason: str) -> ConstraintError:
    what = {"json_schema": "JSON schema", "choice": "list of choices"}
    name = what.get(constraint.kind, constraint.kind)
    # Of a regex the engine prints the whole and a caret; its last line says what is wrong.
    if len(reason) > MAX_REASON:
        reason = reason.strip().rsplit("\n", 1)[-1][:MAX_REASON]
    return ConstraintError(
        f"the backend {constraint.backend} cannot enforce this {name}: {reason.strip()}. "
        "Leave out or rewrite what it names"
    )
