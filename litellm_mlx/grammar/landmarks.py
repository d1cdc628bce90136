"""Texts that a constraint asks for and that no bitmask shows the way to.

Inside free text every token is allowed, also where only one text leads on: the marker after it, or
the rest of a pattern. Owns what such texts are, read from the constraint's source. They are only
offered to a guide, which decides, so a wrong one costs time and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from litellm_mlx.grammar.regex_example import regex_example
from litellm_mlx.grammar.vocabulary import marker_token_ids
from litellm_mlx.types import Constraint

if TYPE_CHECKING:
    from litellm_mlx.grammar.vocabulary import Vocabulary

# Each is offered to the guide at about 1 us. Of 998 dev schemas 196 have any, 19 at the median and
# 178 at most.
MAX_TAILS = 400
MAX_REQUIRED = 2_000

_FORMATS = {
    "date-time": "2000-01-01T00:00:00Z",
    "date": "2000-01-01",
    "time": "00:00:00Z",
    "duration": "P0D",
    "email": "a@a.aa",
    "hostname": "a",
    "ipv4": "0.0.0.0",
    "ipv6": "::",
    "uri": "a:",
    "uuid": "00000000-0000-0000-0000-000000000000",
}
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_SLASHED = re.compile(r"/((?:[^/\\\n]|\\.)+)/")


@lru_cache(maxsize=256)
def landmarks_of(constraint: Constraint) -> Landmarks:
    """Give a constraint's landmarks; one object for equal constraints."""
    return Landmarks(constraint)


class Landmarks:
    """What one constraint's endings may pass by; read from its source at first use.

    Attributes:
        first_endings: by vocabulary fingerprint, the ending from the beginning; see `closing`.
    """

    def __init__(self, constraint: Constraint) -> None:
        """Keep the constraint; nothing is read yet."""
        self._constraint = constraint
        self._in_tokens: dict[str, tuple[tuple[int, ...], ...]] = {}
        self.first_endings: dict[str, tuple[int, ...] | None] = {}

    def tails_in_tokens(self, vocabulary: Vocabulary) -> tuple[tuple[int, ...], ...]:
        """The tails as the tokenizer writes them."""
        key = vocabulary.fingerprint
        if key not in self._in_tokens:
            self._in_tokens[key] = tuple(_in_tokens(text, vocabulary) for text in self.tails)
        return self._in_tokens[key]

    def ways_out_in_tokens(self, vocabulary: Vocabulary) -> tuple[tuple[int, ...], ...]:
        """The tails that free text cannot hold, as the tokenizer writes them."""
        ends = self._ends_of_free_text
        num = sum(any(end in text for end in ends) for text in self.tails)
        return self.tails_in_tokens(vocabulary)[:num]  # they come first

    @cached_property
    def tails(self) -> tuple[str, ...]:
        """Texts after which a part is complete: literals, and ends of examples.

        First those that free text cannot hold, since only they lead out of it; then the shortest.
        """
        literals, examples = self._texts
        tails = {text for text in literals if text}
        for example in examples:
            tails.update(example[start:] for start in range(len(example)))
        ends = self._ends_of_free_text

        def order(text: str) -> tuple[bool, int, str]:
            return not any(end in text for end in ends), len(text), text

        return tuple(sorted(tails, key=order)[:MAX_TAILS])

    @cached_property
    def key_starts(self) -> frozenset[bytes]:
        """Beginnings of the names of required properties."""
        if self._constraint.kind != "json_schema":
            return frozenset()
        names = _required(json.loads(self._constraint.source))
        quoted = (json.dumps(name, ensure_ascii=False)[1:].encode() for name in names)
        return frozenset(name[:end] for name in quoted for end in range(1, len(name) + 1))

    @cached_property
    def _ends_of_free_text(self) -> frozenset[str]:
        if self._constraint.kind != "structure":
            return frozenset()
        return frozenset(_excluded(json.loads(self._constraint.source)))

    @cached_property
    def _texts(self) -> tuple[list[str], list[str]]:
        """Whole literals, and examples whose ends will do."""
        kind, source = self._constraint.kind, self._constraint.source
        if kind == "json_schema":
            return [], list(_json_examples(json.loads(source)))
        if kind == "regex":
            return [], [regex_example(source) or ""]
        if kind == "grammar":
            return _grammar_texts(source)
        if kind == "structure":
            return _structure_texts(json.loads(source))
        return [], []


def _in_tokens(text: str, vocabulary: Vocabulary) -> tuple[int, ...]:
    """A text as the tokenizer writes it, its markup as the tokens that the vocabulary has."""
    encode, markers = vocabulary.ll_tokenizer.tokenize_str, marker_token_ids(vocabulary)
    tokens: list[int] = []
    while text:
        at, marker = min(((text.find(m), m) for m in markers if m in text), default=(len(text), ""))
        tokens += encode(text[:at])
        if marker:
            tokens.append(markers[marker])
        text = text[at + len(marker) :]
    return tuple(tokens)


def _json_examples(schema: Any) -> Iterator[str]:
    """Ends of JSON strings, closing quote included, that the schema's patterns match."""
    for node in _objects(schema):
        pattern, name = node.get("pattern"), node.get("format")
        example = regex_example(pattern) if isinstance(pattern, str) else None
        for text in (example, _FORMATS.get(name) if isinstance(name, str) else None):
            if text is not None:
                yield json.dumps(text, ensure_ascii=False)[1:]


def _required(schema: Any) -> set[str]:
    names: set[str] = set()
    for node in _objects(schema):
        required = node.get("required")
        if isinstance(required, list) and len(names) < MAX_REQUIRED:
            names.update(name for name in required if isinstance(name, str))
    return names


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object inside a JSON value; also those that are no schemas, which does no harm."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _grammar_texts(source: str) -> tuple[list[str], list[str]]:
    literals = []
    for quoted in _QUOTED.findall(source):
        try:
            literals.append(str(json.loads(quoted)))
        except ValueError:  # an escape that JSON has not
            continue
    examples = (regex_example(pattern) for pattern in _SLASHED.findall(source))
    return literals, [example for example in examples if example]


def _structure_texts(part: list[Any]) -> tuple[list[str], list[str]]:
    """Of a structure's JSON form; see `grammar.structure`."""
    name, first = part[0], part[1]
    if name in ("Text", "Marker"):
        return [first], []
    if name == "FreeText":
        return list(first), []
    if name == "JsonPart":
        return [], list(_json_examples(json.loads(first)))
    if name == "Grammar":
        return _grammar_texts(first)
    if name == "Pattern":
        return [], [regex_example(first) or ""]
    return _joined(_structure_texts(item) for item in ([first] if name == "Repeat" else first))


def _excluded(part: list[Any]) -> Iterator[str]:
    """What a structure's free texts exclude."""
    name, first = part[0], part[1]
    if name == "FreeText":
        yield from first
    elif name in ("Seq", "OneOf", "Repeat"):
        for item in [first] if name == "Repeat" else first:
            yield from _excluded(item)


def _joined(texts: Iterable[tuple[list[str], list[str]]]) -> tuple[list[str], list[str]]:
    literals: list[str] = []
    examples: list[str] = []
    for some_literals, some_examples in texts:
        literals += some_literals
        examples += some_examples
    return literals, examples
