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
from litellm_mlx.types import Constraint

if TYPE_CHECKING:
    from litellm_mlx.grammar.vocabulary import Vocabulary

# Each is offered to the guide, 1 us apiece; 1,000 dev schemas have 37 at the median of those
# that have any.
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
            encode = vocabulary.ll_tokenizer.tokenize_str
            self._in_tokens[key] = tuple(tuple(encode(text)) for text in self.tails)
        return self._in_tokens[key]

    @cached_property
    def tails(self) -> tuple[str, ...]:
        """Texts after which a part is complete, shortest first: literals, and ends of examples."""
        literals, examples = self._texts
        tails = {text for text in literals if text}
        for example in examples:
            tails.update(example[start:] for start in range(len(example)))
        return tuple(sorted(tails, key=lambda text: (len(text), text))[:MAX_TAILS])

    @cached_property
    def key_starts(self) -> frozenset[bytes]:
        """Beginnings of the names of required properties."""
        if self._constraint.kind != "json_schema":
            return frozenset()
        names = _required(json.loads(self._constraint.source))
        quoted = (json.dumps(name, ensure_ascii=False)[1:].encode() for name in names)
        return frozenset(name[:end] for name in quoted for end in range(1, len(name) + 1))

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
    if name == "Pattern":
        return [], [regex_example(first) or ""]
    return _joined(_structure_texts(item) for item in ([first] if name == "Repeat" else first))


def _joined(texts: Iterable[tuple[list[str], list[str]]]) -> tuple[list[str], list[str]]:
    literals: list[str] = []
    examples: list[str] = []
    for some_literals, some_examples in texts:
        literals += some_literals
        examples += some_examples
    return literals, examples
