"""A structure lets through exactly its texts, and finds its JSON in them again."""

from __future__ import annotations

import json
import random
from functools import cache
from typing import Any

import pytest

from litellm_mlx.errors import ConstraintError, EngineError
from litellm_mlx.grammar.structure import (
    FreeText,
    Marker,
    OneOf,
    Part,
    Pattern,
    Repeat,
    Seq,
    Text,
    json_part,
    structure_constraint,
)
from litellm_mlx.grammar.structure_compiler import (
    CUT_SHORT,
    StructureIndex,
    compile_structure,
)
from litellm_mlx.grammar.structure_match import can_be_read
from litellm_mlx.grammar.vocabulary import Vocabulary, marker_token_ids
from tests.grammar_sampling import (
    STOP_TOKEN_IDS,
    allowed_tokens,
    byte_ids,
    byte_tokenizer,
    draw,
    tokens_of,
)

POINT: dict[str, Any] = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "any": {}},
    "required": ["x"],
    "additionalProperties": False,
}
CALL = Seq((Marker("<call>"), Text(" "), json_part(POINT), Marker("</call>")))
# As Mistral's, which some tokenizers do not call special: the engine takes it for text.
STEERING = Seq((Marker("[CALL]"), json_part(POINT)))

NO_QUOTE = {"type": "string", "pattern": '^[^"]+$'}
NAMED = Seq(
    (Marker("<call>"), json_part({**POINT, "required": [], "properties": {"name": NO_QUOTE}}))
)


@cache
def vocabulary() -> Vocabulary:
    """The byte tokenizer with markers, special and not."""
    from tokenizers import AddedToken

    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<call>"]})
    tokenizer.add_tokens([AddedToken(t, special=False) for t in ("</call>", "[CALL]", "[OTHER]")])
    return Vocabulary.from_tokenizer(
        tokenizer, vocab_size=len(tokenizer) + 5, stop_token_ids=STOP_TOKEN_IDS
    )


def compiled(root: Part) -> StructureIndex:
    return compile_structure(structure_constraint(root), vocabulary())


def tokens(*pieces: str) -> list[int]:
    """Markers as their tokens, everything else byte by byte."""
    markers = marker_token_ids(vocabulary())
    return [
        token_id
        for piece in pieces
        for token_id in ([markers[piece]] if piece in markers else byte_ids(vocabulary(), piece))
    ]


def allows(root: Part, *pieces: str) -> bool:
    """Asked token by token; the bitmask lets forced text come in one spelling only."""
    guide = compiled(root).guide()
    try:
        for token_id in tokens(*pieces):
            guide.advance(token_id)
    except EngineError:
        return False
    return guide.is_accepting


def test_markup_tokens_are_found_by_their_text() -> None:
    assert {"<call>", "</call>", "[CALL]", "[OTHER]"} <= set(marker_token_ids(vocabulary()))


@pytest.mark.parametrize(
    ("root", "pieces", "is_allowed"),
    [
        (CALL, ("<call>", ' {"x": 1}', "</call>"), True),
        (CALL, ("<call>", ' {"x": "1"}', "</call>"), False),
        (CALL, ("<call>", ' {"x":1}', "</call>"), False),  # json.dumps writes a space
        (CALL, (" <", "call>", ' {"x": 1}', "</call>"), False),
        (STEERING, ("[CALL]", '{"x": 1}'), True),
        (STEERING, ("[OTHER]",), False),
        (NAMED, ("<call>", '{"name": "a\'"}'), True),
        (NAMED, ("<call>", r'{"name": "a\""}'), False),
        (Repeat(Text("ab"), 1, 2), ("ab",), True),
        (Repeat(Text("ab"), 1, 2), ("ababab",), False),
        (Repeat(Text("ab")), ("",), True),
        (Pattern("[/a-c]+\n?"), ("a/b\n",), True),
        (Pattern(r"a\/b"), ("a/b",), True),
        (FreeText(("no",)), ("n o",), True),
        (FreeText(("no",)), ("a no",), False),
        (FreeText(), ("anything\n\\ \"'/", "é€😀"), True),
        (Text('quote " and \\ and \n😀'), ('quote " and \\ and \n😀',), True),
    ],
)
def test_each_part_lets_through_its_texts(
    root: Part, pieces: tuple[str, ...], is_allowed: bool
) -> None:
    assert allows(root, *pieces) is is_allowed


@pytest.mark.parametrize("marker", ["<call>", "[CALL]", "plain call"])
def test_free_text_cannot_swallow_what_ends_it(marker: str) -> None:
    call = Seq((Marker(marker), json_part(POINT)))
    auto = Seq((FreeText((marker,)), Repeat(call)))
    assert allows(auto, "just text")
    assert allows(auto, "")
    assert allows(auto, "text ", marker, '{"x": 1}')
    assert allows(auto, "text ", marker, '{"x": 1}', marker, '{"x": 2}')
    assert not allows(auto, "text ", marker)
    assert not allows(auto, "text ", marker, " more text")
    assert not allows(auto, "text ", marker, '{"x": 1}', " more text")


@pytest.mark.parametrize("marker", ["<call>", "[CALL]"])
def test_a_marker_spelled_in_ordinary_tokens_is_no_marker(marker: str) -> None:
    auto = Seq((FreeText((marker,)), Repeat(Seq((Marker(marker), json_part(POINT))))))
    guide = compiled(auto).guide()
    *most, last = byte_ids(vocabulary(), f"so {marker}")
    for token_id in most:
        guide.advance(token_id)
    assert last not in allowed_tokens(guide, vocabulary())


def test_a_marker_inside_the_text_that_ends_a_free_text() -> None:
    call = Seq((Text("["), Marker("<call>"), Text("]"), json_part(POINT)))
    auto = Seq((FreeText(("[<call>]",)), Repeat(call)))
    assert allows(auto, "a [ b")
    assert allows(auto, "a [ b [", "<call>", ']{"x": 1}')
    assert not allows(auto, "a [ b ", "<call>", ']{"x": 1}')
    assert not allows(auto, "a [ b [", "<call>", "] no")


def test_free_text_ends_at_the_first_of_several_texts() -> None:
    fields = Seq(
        (
            FreeText(("\n## b",)),
            Text("\n## b: "),
            OneOf((Seq((Text("text "), FreeText(("\n## c",)))), json_part({"type": "integer"}))),
            Text("\n## c"),
        )
    )
    assert allows(fields, "a\n## \n## b: text x\n#\n## c")
    assert allows(fields, "\n## b: 12\n## c")
    assert not allows(fields, "\n## b: 1 2\n## c")


@pytest.mark.parametrize(
    "root",
    [
        Seq((FreeText(), json_part(POINT))),
        Seq((FreeText(("a",)), Pattern("a+"))),
        Seq((Repeat(Seq((Text("a"), FreeText(("b",))))), Text("b"))),
    ],
)
def test_free_text_without_an_end_is_refused(root: Part) -> None:
    with pytest.raises(ConstraintError, match="free text"):
        compiled(root)


def test_what_the_engine_cannot_enforce_is_refused_by_name() -> None:
    with pytest.raises(ConstraintError, match=r"(?s)structure: invalid regex.*look-around"):
        compiled(Seq((Text("a"), Pattern("(?=a)b"))))


def read_json(root: Part, text: str) -> list[str]:
    """The JSON texts that were asked about while a text could be read."""
    asked: list[str] = []

    def is_valid(_: str, json_text: str) -> bool:
        asked.append(json_text)
        return True

    assert can_be_read(root, text, is_valid)
    return asked


@pytest.mark.parametrize("root", [CALL, Seq((FreeText(("<call>",)), Repeat(CALL, 0, 3)))])
def test_random_texts_are_read_back(root: Part) -> None:
    index, rng = compiled(root), random.Random(8)
    drawn = [draw(index, vocabulary(), rng, max_tokens=600) for _ in range(60)]
    texts = [text.decode("utf-8", "replace") for text in drawn if text is not None]
    assert len(texts) > 40
    for text in texts:
        assert index.check(text) is None
        found = read_json(root, text)
        assert len(found) == text.count("<call>")
        assert all(isinstance(json.loads(part)["x"], int) for part in found)


def test_numbers_stay_parsable_inside_json_and_free_outside() -> None:
    auto = Seq((FreeText(("<call>",)), Repeat(CALL, 0, 1)))
    digits = "7" * 40
    for pieces, may_go_on in ((("<call>", ' {"x": ', digits[:20]), False), (('{"', digits), True)):
        guide = compiled(auto).guide()
        for token_id in tokens(*pieces):
            guide.advance(token_id)
        assert (tokens("7")[0] in allowed_tokens(guide, vocabulary())) is may_go_on
    index, rng = compiled(CALL), random.Random(3)
    digits_first = tokens_of(b"0123456789e.")
    drawn = [draw(index, vocabulary(), rng, prefer=digits_first) for _ in range(30)]
    texts = [text for text in drawn if text is not None]  # a string of digits need not end
    assert len(texts) > 10
    for text in texts:
        assert json.loads(text.removeprefix(b"<call>").removesuffix(b"</call>"))


def test_json_is_found_between_free_texts() -> None:
    root = Seq((Repeat(Seq((FreeText(("<a>",)), Text("<a>"), json_part({})))), FreeText(("<a>",))))
    assert read_json(root, 'x <a>[1, "<a>"] y <a>{"k": "v"} z') == ['[1, "<a>"]', '{"k": "v"}']
    assert not can_be_read(root, "x <a>", lambda *_: True)


def test_a_text_that_one_of_many_ways_makes_valid_is_valid() -> None:
    """However often a place may be read in two ways, no way is lost."""
    two = OneOf((json_part({"type": "integer"}), json_part({"maximum": 5})))
    root = Repeat(Seq((Text("<a>"), two)))
    check = compiled(root).check
    assert check("<a>7<a>2.5" * 12) is None
    assert check("<a>7<a>2.5" * 12 + "<a>7.5") is not None


def test_reading_back_is_cheap_however_many_ways_there_are() -> None:
    root = Seq((*[Seq((FreeText(), Text("a")))] * 12, Text("b")))
    assert not can_be_read(root, "a" * 3000, lambda *_: True)


def test_json_that_the_grammar_cannot_hold_is_checked_where_it_stands() -> None:
    odd = {"type": "object", "properties": {"x": {"type": "string", "pattern": "^(?!no)"}}}
    root = Seq((FreeText(("<call>",)), Repeat(Seq((Marker("<call>"), json_part(odd))))))
    index = compiled(root)
    assert index.tier == "grammar+check"
    assert compiled(CALL).tier == "grammar"
    assert index.check('{"x": "no"} <call>{"x": "yes"}<call>{"x": "yo"}') is None
    assert "no" in (index.check('text <call>{"x": "yes"}<call>{"x": "no"}') or "")
    assert index.check('text <call>{"x": ') == CUT_SHORT
    assert compiled(CALL).check("anything") == CUT_SHORT
