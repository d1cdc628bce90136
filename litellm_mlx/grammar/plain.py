"""Spells a caller's schema so that the grammar engine and the validator can both read it.

Owns what only looks wrong to them: regexes that ECMA-262 takes and they do not (see `patterns`),
and references to names that are no URI, or to schemas by an id or anchor of theirs. The meaning
stays; what the drafts say about references beyond that is `drafts`.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urljoin

from litellm_mlx.grammar.disjoint import resolve
from litellm_mlx.grammar.json_schema import (
    KEYWORDS,
    Schema,
    escaped,
    map_subschemas,
    map_with_paths,
)
from litellm_mlx.grammar.patterns import plain_pattern

PATTERN_KEYWORDS = frozenset({"pattern", "patternProperties"})
REFERENCE_KEYWORDS = frozenset({"$ref", "$id", "id"})


def with_plain_patterns(schema: Schema) -> Schema:
    """Copy a schema with its regexes as every engine reads them alike."""
    if isinstance(schema, bool):
        return schema
    kept = map_subschemas(schema, with_plain_patterns)
    if isinstance(kept.get("pattern"), str):
        kept["pattern"] = plain_pattern(kept["pattern"])
    named = kept.get("patternProperties")
    if isinstance(named, dict):
        kept["patternProperties"] = _plain_names(named)
    return kept


def _plain_names(named: dict[str, Any]) -> dict[str, Any]:
    spelled = {plain_pattern(pattern): schema for pattern, schema in named.items()}
    return spelled if len(spelled) == len(named) else named


# In JSON text without spaces, so that a schema with plain references only is not walked: a
# reference to other than the document or a definition of a plain name, or an id that is no URI.
_ODD = re.compile(
    r'"\$ref":"(?!#"|#/(?:\$defs|definitions)/[A-Za-z0-9._~$-]+")'
    r'|"\$?id":"[^"]*[^"A-Za-z0-9._~:/?#@!$&\'()*+,;=%-]'
)
_DYNAMIC = ('"$dynamicRef":', '"$recursiveRef":')
_IDS = ("$id", "id")
_ANCHORS = ("$anchor", "$dynamicAnchor")


def has_odd_references(source: str) -> bool:
    """Whether `with_plain_references` may change a schema; data that look like references count."""
    if _ODD.search(source):
        return True
    return source.count('"$id":"') + source.count('"id":"') > 1


def with_plain_references(schema: Schema, source: str) -> Schema:
    """Copy a schema with each reference as a pointer from its root, written as a URI.

    A pointer counts as written, then with its percent-encodings decoded; it starts at the schema
    with the nearest id, as the drafts say, and where nothing is there, at the root. Ids and anchors
    go, as nothing needs them then. A reference that leads nowhere stays for the validator to name.
    """
    has_dynamic = any(keyword in source for keyword in _DYNAMIC)
    if isinstance(schema, bool) or (has_dynamic and source.count('"$id":"') > 1):
        return schema
    return _References(schema, has_dynamic).rewritten()


class _Resource(NamedTuple):
    """A schema with an id: its URI, and the pointer to it."""

    uri: str
    pointer: str


class _References:
    """The references of one document, and what they may lead to."""

    def __init__(self, root: dict[str, Any], has_dynamic: bool) -> None:
        self._root = root
        self._has_dynamic = has_dynamic
        self._pointers: dict[str, str] = {"": ""}
        self._anchors: dict[tuple[str, str], str] = {}
        self._note(root, "", _Resource("", ""))

    def rewritten(self) -> Schema:
        return self._changed(self._root, "", _Resource("", ""))

    def _note(self, schema: Schema, pointer: str, base: _Resource) -> Schema:
        """Take down the ids and anchors of a schema and of all inside it."""
        if isinstance(schema, bool):
            return schema
        here = _resource(schema, pointer, base)
        self._pointers.setdefault(here.uri, here.pointer)
        for key in (*_IDS, *_ANCHORS):
            name = schema.get(key)
            if isinstance(name, str) and (key in _ANCHORS or name.startswith("#")):
                self._anchors.setdefault((here.uri, name.removeprefix("#")), pointer)
        return map_with_paths(schema, lambda sub, path: self._note(sub, pointer + path, here))

    def _changed(self, schema: Schema, pointer: str, base: _Resource) -> Schema:
        if isinstance(schema, bool):
            return schema
        here = _resource(schema, pointer, base)
        kept = map_with_paths(schema, lambda sub, path: self._changed(sub, pointer + path, here))
        for key in kept.keys() - KEYWORDS:  # a reference may lead to any place
            kept[key] = self._changed_inside(kept[key], here)
        reference = kept.get("$ref")
        if isinstance(reference, str):
            target = self._target(reference, here)
            if target is not None:
                kept["$ref"] = "#" + quote(target, safe="/~$")
        dropped = _IDS if self._has_dynamic else (*_IDS, *_ANCHORS)
        return {
            key: value
            for key, value in kept.items()
            if key not in dropped or not isinstance(value, str)
        }

    def _changed_inside(self, value: Any, base: _Resource) -> Any:
        if isinstance(value, dict):
            return self._changed(value, "", base)
        if isinstance(value, list):
            return [self._changed_inside(item, base) for item in value]
        return value

    def _target(self, reference: str, base: _Resource) -> str | None:
        """The pointer to what a reference names; None where it is not in the document."""
        uri, _, fragment = reference.partition("#")
        full = urljoin(base.uri, uri) if uri else base.uri
        start = self._pointers.get(full, self._pointers.get(uri))
        if start is None:
            return None
        for name in (fragment, unquote(fragment)):
            if not name:
                return start
            if (full, name) in self._anchors:
                return self._anchors[full, name]
            found = self._followed(start, name) or self._followed("", name)
            if found is not None:
                return found
        return None

    def _followed(self, start: str, name: str) -> str | None:
        """The pointer from the root; a definition may have a slash in its name."""
        if not name.startswith("/"):
            return None
        if isinstance(resolve("#" + start + name, self._root), dict | bool):
            return start + name
        holder, rest = name[1:].partition("/")[::2]
        named = resolve(f"#{start}/{holder}", self._root)
        if holder in ("$defs", "definitions") and isinstance(named, dict) and rest in named:
            return f"{start}/{holder}/{escaped(rest)}"
        return None


def _resource(schema: dict[str, Any], pointer: str, base: _Resource) -> _Resource:
    """The resource that a schema belongs to: its own where it has an id."""
    for key in _IDS:
        uri = schema.get(key)
        if isinstance(uri, str) and not uri.startswith("#"):
            return _Resource(urljoin(base.uri, uri.removesuffix("#")), pointer)
    return base
