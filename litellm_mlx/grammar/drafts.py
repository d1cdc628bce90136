"""Brings a JSON schema into the one form that the later steps read, without changing its meaning.

Owns what the drafts say about references: siblings of `$ref`, targets outside of known keywords,
and references whose target depends on who refers. Unknown keywords go. Which draft it is,
`metaschema` says; what the engine cannot do with the result is `relax`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

from litellm_mlx.grammar.disjoint import resolve
from litellm_mlx.grammar.json_schema import (
    KEYWORDS,
    Schema,
    escaped,
    map_subschemas,
    map_with_paths,
)
from litellm_mlx.grammar.metaschema import declared_draft

# To the whole document, or to one of its definitions: nothing to rewrite.
_PLAIN_REFERENCE = re.compile(r"#|#/(?:\$defs|definitions)/[^/%]+")
_DYNAMIC = frozenset({"$dynamicRef", "$recursiveRef"})
_DYNAMIC_OR_REF = _DYNAMIC | {"$ref"}
_REF_STANDS_ALONE = frozenset({"4", "6", "7"})
_ALWAYS_KEPT = frozenset({"$ref", "$defs", "definitions", "$schema", "$id", "id", "$anchor"})


def settle(schema: Schema) -> Schema:
    """Rewrite a schema to what it means, in keywords that the later steps know.

    - What a reference names outside of known keywords is copied into `$defs`, under the pointer
      to it.
    - Beside `$ref`, drafts 4, 6 and 7 ignore everything; so does this where one is declared.
    - In a document without nested ids `$recursiveRef` is `$ref`, and so is `$dynamicRef` to an
      anchor of which there is one.
    - Unknown keywords, and a `$schema` that no one knows, say nothing and are dropped.
    """
    if isinstance(schema, bool):
        return schema
    draft = declared_draft(schema)
    settled = dict(schema)
    if draft is None:
        settled.pop("$schema", None)
    trim = _Trim(is_ref_alone=draft in _REF_STANDS_ALONE)
    trimmed = trim.schema(settled)
    if not trim.has_odd_reference:  # most schemas are done after this one walk
        return trimmed
    references, has_dynamic = _references(schema)
    if has_dynamic or not all(map(_PLAIN_REFERENCE.fullmatch, references)):
        own_id = settled.get("$id", settled.get("id"))
        if not has_nested_ids(settled):
            settled = _Static(settled, own_id if isinstance(own_id, str) else "").rewritten()
            settled = _with_targets(settled)
    return _trimmed(settled, references if draft in _REF_STANDS_ALONE else None)


def _references(schema: Any) -> tuple[list[str], bool]:
    """Every `$ref`, and whether there are dynamic ones; data that look like them count too."""
    found: list[str] = []
    has_dynamic = False
    todo = [schema]
    while todo:
        at = todo.pop()
        if isinstance(at, dict):
            todo += at.values()
            has_dynamic = has_dynamic or "$dynamicRef" in at or "$recursiveRef" in at
            if isinstance(at.get("$ref"), str):
                found.append(at["$ref"])
        elif isinstance(at, list):
            todo += at
    return found, has_dynamic


def subschemas(schema: Schema, pointer: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The schema and all schemas inside it that are objects, with their JSON pointers."""
    if isinstance(schema, bool):
        return
    yield pointer, schema
    inner: list[tuple[str, Schema]] = []

    def note(sub: Schema, path: str) -> Schema:
        inner.append((path, sub))
        return sub

    map_with_paths(schema, note)
    for path, sub in inner:
        yield from subschemas(sub, pointer + path)


def defs_reference(name: str) -> str:
    """The reference to a definition of this name in the document's `$defs`."""
    return "#/$defs/" + quote(escaped(name), safe="~$")


def original_pointer(pointer: str) -> str:
    """Where in the schema as written a place of the settled one was, by its JSON pointer."""
    inside = pointer.removeprefix("/$defs/~1")
    if inside == pointer:
        return pointer
    moved, slash, rest = inside.partition("/")
    return "/" + moved.replace("~1", "/").replace("~0", "~") + slash + rest


def has_nested_ids(schema: dict[str, Any]) -> bool:
    """Whether a schema inside this one begins a resource of its own."""
    return any(
        isinstance(sub.get(key), str) and not sub[key].startswith("#")
        for pointer, sub in subschemas(schema)
        if pointer
        for key in ("$id", "id")
    )


class _Trim:
    """Drops unknown keywords, and looks out for references that take more than that."""

    def __init__(self, *, is_ref_alone: bool) -> None:
        self._is_ref_alone = is_ref_alone
        self.has_odd_reference = False

    def schema(self, schema: Schema) -> Schema:
        if isinstance(schema, bool):
            return schema
        if not _DYNAMIC_OR_REF.isdisjoint(schema):
            self._look_at(schema)
        kept = {key: value for key, value in schema.items() if key in KEYWORDS}
        return map_subschemas(kept, self.schema)

    def _look_at(self, schema: dict[str, Any]) -> None:
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not _PLAIN_REFERENCE.fullmatch(reference):
            self.has_odd_reference = True
        if not _DYNAMIC.isdisjoint(schema) or (self._is_ref_alone and schema.keys() - _ALWAYS_KEPT):
            self.has_odd_reference = True


class _Static:
    """Rewrites references of one document so that each names its target by a pointer or anchor."""

    def __init__(self, root: dict[str, Any], own_id: str) -> None:
        self._root = root
        self._own_id = own_id.rstrip("#")
        found = [sub.get("$dynamicAnchor") for _, sub in subschemas(root)]
        names = [name for name in found if isinstance(name, str)]
        self._anchors = frozenset(name for name in names if names.count(name) == 1)

    def rewritten(self) -> dict[str, Any]:
        changed = self._schema(self._root, "")
        assert isinstance(changed, dict)
        return changed

    def _schema(self, schema: Schema, _path: str) -> Schema:
        if isinstance(schema, bool):
            return schema
        kept = dict(schema)
        anchor, dynamic = kept.get("$dynamicAnchor"), kept.get("$dynamicRef")
        if anchor in self._anchors and "$anchor" not in kept:
            kept["$anchor"] = kept.pop("$dynamicAnchor")
        is_known = isinstance(dynamic, str) and dynamic.removeprefix("#") in self._anchors
        if is_known and "$ref" not in kept:
            kept["$ref"] = kept.pop("$dynamicRef")
        if kept.get("$recursiveRef") == "#" and "$ref" not in kept:
            kept["$ref"] = kept.pop("$recursiveRef")
        reference = kept.get("$ref")
        if isinstance(reference, str) and self._own_id:
            inside = reference.removeprefix(self._own_id)
            if inside != reference and inside[:1] in ("", "#"):
                kept["$ref"] = inside or "#"
        return map_with_paths(kept, self._schema)


def _with_targets(root: dict[str, Any]) -> dict[str, Any]:
    """Copy what references name in places where no schema stands to places where one does."""
    known = {pointer for pointer, _ in subschemas(root)}
    moved: dict[str, Schema] = {}

    def changed(schema: Schema, _path: str) -> Schema:
        if isinstance(schema, bool):
            return schema
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/"):
            pointer = unquote(reference[1:])
            if pointer not in known:
                move(pointer)
            if pointer in moved:
                schema = {**schema, "$ref": defs_reference(pointer)}
        return map_with_paths(schema, changed)

    def move(pointer: str) -> None:
        target = resolve("#" + pointer, root)
        if pointer not in moved and isinstance(target, dict | bool):
            moved[pointer] = target
            moved[pointer] = changed(target, "")

    settled = changed(root, "")
    assert isinstance(settled, dict)
    if moved:
        settled["$defs"] = {**settled.get("$defs", {}), **moved}
    return settled


def _trimmed(schema: Schema, references: list[str] | None) -> Schema:
    """Drop unknown keywords.

    Where `references` is given, also what stands beside `$ref`, unless one leads into it.
    """

    def is_alone(schema: dict[str, Any]) -> bool:
        if references is None or not isinstance(schema.get("$ref"), str):
            return False
        siblings = schema.keys() - _ALWAYS_KEPT
        return not any(f"/{key}/" in pointer for key in siblings for pointer in references)

    def trim(schema: Schema) -> Schema:
        if isinstance(schema, bool):
            return schema
        known = _ALWAYS_KEPT if is_alone(schema) else KEYWORDS
        kept = {key: value for key, value in schema.items() if key in known}
        return map_subschemas(kept, trim)

    return trim(schema)
