"""Says for a JSON schema how it would be enforced, keyword by keyword, without a model.

Owns the report. The tiers themselves are `tiers`, which this asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from litellm_mlx.errors import ConstraintError
from litellm_mlx.types import Tier

if TYPE_CHECKING:
    from litellm_mlx.grammar.relax import Loosened
    from litellm_mlx.grammar.vocabulary import Vocabulary

Enforced = Literal["by grammar", "by check", "annotation", "refused"]

# Say where something is said, not what.
_STRUCTURE = frozenset({"$defs", "definitions"})
_NAMES = frozenset(
    "$schema $id id $anchor $dynamicAnchor $recursiveAnchor $vocabulary $comment".split()
)
_ONLY_BESIDE = {
    "if": {"then", "else"},
    "then": {"if"},
    "else": {"if"},
    "minContains": {"contains"},
    "maxContains": {"contains"},
    "additionalItems": {"items"},
}


@dataclass(frozen=True, slots=True)
class KeywordReport:
    """One keyword at one place: a JSON pointer to it, who enforces it, and why not the grammar."""

    pointer: str
    keyword: str
    enforced: Enforced
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SchemaReport:
    """How a schema is enforced; `reason` says why it is refused, or needs a check.

    In tier "grammar+check" the check looks at all keywords, those of the grammar too.
    """

    tier: Tier | Literal["refused"]
    reason: str
    keywords: tuple[KeywordReport, ...]


def explain_schema(
    schema: Mapping[str, Any] | bool, vocabulary: Vocabulary | None = None
) -> SchemaReport:
    """Report the tier of a JSON schema and what becomes of each keyword.

    Args:
        schema: as it would be sent in `response_format`.
        vocabulary: whose tokens the grammar is for; by default single bytes, which gives the same
            tiers and needs no model.

    Cost: one compile, 1 ms at the median, and the import of the engine at the first call.
    """
    from litellm_mlx.grammar.constraint import json_schema_constraint
    from litellm_mlx.grammar.matcher import NotCompiledError
    from litellm_mlx.grammar.tiers import plan_schema
    from litellm_mlx.grammar.vocabulary import byte_vocabulary

    try:
        source = json_schema_constraint(schema).source
        plan = plan_schema(source, vocabulary or byte_vocabulary())
    except NotCompiledError as error:
        return SchemaReport("refused", error.reason, tuple(_blamed(schema)))
    except ConstraintError as error:
        return SchemaReport("refused", str(error), tuple(_blamed(schema)))
    assert isinstance(schema, Mapping | bool)
    keywords = tuple(_keywords(schema, plan.loosened))
    return SchemaReport(plan.tier, _reason(plan.loosened), keywords)


def _reason(loosened: tuple[Loosened, ...]) -> str:
    if not loosened:
        return ""
    names = ", ".join(f"`{name}`" for name in dict.fromkeys(item.keyword for item in loosened))
    return f"checked after generation: {names}"


def _blamed(schema: object) -> Iterator[KeywordReport]:
    """The references that no grammar may follow, where there are any."""
    from litellm_mlx.grammar.drafts import subschemas

    if not isinstance(schema, dict):
        return
    for pointer, sub in subschemas(schema):
        reference = sub.get("$ref")
        if isinstance(reference, str) and "://" in reference:
            yield KeywordReport(
                f"{pointer}/$ref", "$ref", "refused", "other documents are never fetched"
            )


def _keywords(
    schema: Mapping[str, Any] | bool, loosened: tuple[Loosened, ...]
) -> Iterator[KeywordReport]:
    from litellm_mlx.grammar.drafts import original_pointer, settle, subschemas
    from litellm_mlx.grammar.json_schema import escaped

    if not isinstance(schema, dict):
        return
    why = {original_pointer(item.pointer): item for item in loosened}
    meant = dict(subschemas(settle(schema)))
    silent: set[str] = set()
    seen: set[str] = set()
    for pointer, sub in subschemas(schema):
        for keyword in (key for key in sub if key not in _STRUCTURE):
            at = f"{pointer}/{escaped(keyword)}"
            above = [up for up in _above(at) if up in why and (up == at or why[up].is_gone)]
            if above:
                yield KeywordReport(at, keyword, "by check", why[above[0]].reason)
            elif _says_nothing(keyword, sub, meant.get(pointer)) or silent & set(_above(at)):
                silent.add(at)
                yield KeywordReport(at, keyword, "annotation")
            else:
                yield KeywordReport(at, keyword, "by grammar")
            seen.add(at)
    for at in sorted(
        why.keys() - seen
    ):  # inside of what is no keyword, and a reference leads there
        yield KeywordReport(at, why[at].keyword, "by check", why[at].reason)


def _above(pointer: str) -> Iterator[str]:
    """The pointer itself, and those to what it is inside of."""
    while pointer:
        yield pointer
        pointer = pointer.rpartition("/")[0]


def _says_nothing(keyword: str, schema: dict[str, Any], meant: dict[str, Any] | None) -> bool:
    """Whether a keyword has no bearing on validity where it stands.

    `meant` is the schema there as `drafts.settle` gives it, which lacks what a draft ignores.
    """
    from litellm_mlx.grammar.formats import FORMATS

    if keyword in _ONLY_BESIDE and _ONLY_BESIDE[keyword].isdisjoint(schema):
        return True
    if keyword == "format":
        return schema[keyword] not in FORMATS
    return keyword in _NAMES or meant is None or keyword not in meant
