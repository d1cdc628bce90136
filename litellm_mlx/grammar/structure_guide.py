"""A guide over a structure: the limits of JSON hold inside its JSON and nowhere else.

Numbers and nesting are bounded for parsers' sake, see `number_limit`. Free text has no such
bounds, so the guide follows where JSON begins: right after one of a few fixed texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from litellm_mlx.grammar import nesting_limit, number_limit
from litellm_mlx.grammar.guide import Guide, JsonPlace, LimitedGuide
from litellm_mlx.grammar.structure import JsonPart, Marker, OneOf, Part, Repeat, Seq, Text

if TYPE_CHECKING:
    from litellm_mlx.grammar.guide import Bitmask
    from litellm_mlx.grammar.vocabulary import Vocabulary

_MAX_BEGIN = 200  # characters of the fixed text before JSON that are compared
_SCALAR = frozenset(b"-+.0123456789truefalsnE")


def json_begins(root: Part) -> frozenset[str]:
    """The fixed texts that stand right before a structure's JSON; "" where JSON may be first."""
    begins: set[str] = set()
    _collect(root, frozenset({""}), begins)
    texts = begins - {""}
    longer = {a for a in texts for b in texts if a != b and a.endswith(b)}
    return frozenset(begins - longer)


def _collect(part: Part, before: frozenset[str], begins: set[str]) -> frozenset[str]:
    """The fixed texts before what follows `part`, given those before it."""
    match part:
        case Text(text) | Marker(text):
            return frozenset((fixed + text)[-_MAX_BEGIN:] for fixed in before)
        case JsonPart():
            begins.update(before)
            return frozenset({""})
        case Seq(parts):
            for inner in parts:
                before = _collect(inner, before, begins)
            return before
        case OneOf(options):
            return frozenset().union(*(_collect(o, before, begins) for o in options))
        case Repeat(inner, at_least):
            once = _collect(inner, before, begins)
            again = _collect(inner, once, begins)
            return once | again if at_least else before | once | again
    return frozenset({""})


class StructureGuide(LimitedGuide):
    """Another guide of a structured text, with the limits of JSON applied inside its JSON.

    Args:
        guide: of the whole text.
        vocabulary: of the model.
        begins: see `json_begins`, as UTF-8.
        never: bitmask of markup tokens that the structure does not name; `None` for none.
    """

    def __init__(
        self,
        guide: Guide,
        vocabulary: Vocabulary,
        begins: tuple[bytes, ...],
        never: Bitmask | None,
    ) -> None:
        super().__init__(guide, vocabulary)
        self._begins = tuple(begin for begin in begins if begin)
        self._never = never
        self._keep = max(map(len, self._begins), default=0)
        self._tail = b""
        self._is_json = b"" in begins

    @property
    def json_place(self) -> JsonPlace | None:
        """Where in a JSON part it is; `None` outside of them."""
        return super().json_place if self._is_json else None

    def fill_bitmask(self, row: Bitmask) -> None:
        """Write which tokens may come next; see `Guide`."""
        if self._is_json:
            super().fill_bitmask(row)
        else:
            self._guide.fill_bitmask(row)
        if self._never is not None and (narrowed := row & ~self._never).any():
            row[:] = narrowed

    def advance(self, token_id: int) -> None:
        """Take the token that was sampled; see `Guide`."""
        self._guide.advance(token_id)
        for byte in self._vocabulary.token_bytes(token_id):
            self._step(byte)

    def _step(self, byte: int) -> None:
        before, in_string = self._depth, self._state.part in ("string", "escape")
        if self._is_json:
            self._depth = nesting_limit.depth_after(self._depth, self._state, bytes([byte]))
            self._state = number_limit.advance(self._state, bytes([byte]))
            if not in_string and self._depth <= 0 and self._has_left(before, byte):
                self._enter(is_json=False)
        self._tail = (self._tail + bytes([byte]))[-self._keep :]
        if not in_string and self._begins and self._tail.endswith(self._begins):
            self._enter(is_json=True)

    def _has_left(self, depth_before: int, byte: int) -> bool:
        """A byte outside strings, at the outermost level, that ends JSON or comes after it."""
        is_inside = self._state.part in ("string", "escape") or byte in _SCALAR
        return depth_before > 0 or not is_inside

    def _enter(self, *, is_json: bool) -> None:
        self._is_json = is_json
        self._depth = 0
        self._state = number_limit.START
