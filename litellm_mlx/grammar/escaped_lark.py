"""A Lark grammar of a text, rewritten to the grammar of that text inside a JSON string.

Owns how literals and regexes are escaped. llguidance escapes the patterns of JSON schemas by itself
and has no such option for grammars (1.9.1); this ends when it has one. What cannot be rewritten is
said to be so, and the text is then held by `text_check` alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from litellm_mlx.errors import ConstraintError
from litellm_mlx.grammar.constraint import check_size

# What a JSON string must escape, and the short escapes that the engine writes elsewhere, too.
_SPECIAL = [*map(chr, range(0x20)), '"', "\\"]
_ESCAPES = {'"': '"', "\\": "\\", "\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f"}
_RAW = r'[^"\\\x00-\x1f]'

# Comments, strings, regexes (also behind a range's dots) and all else of a Lark grammar.
_TOKEN = re.compile(
    r'(?P<comment>//[^\n]*)|(?P<string>"(?:\\.|[^"\\\n])*")(?P<string_flag>i?)'
    r"|(?P<regex>/(?:\\.|[^/\\\n])+/)(?P<regex_flags>[imslux]*)|(?P<other>[^\"/]+)"
)
_IMPORT = re.compile(r"%import\s+common\s*\.\s*(\w+)[^\n]*")
# Lark's own terminals: those that hold nothing special, and the others as they are in a string.
_PLAIN_IMPORTS = frozenset(
    "CNAME DIGIT FLOAT HEXDIGIT INT LCASE_LETTER LETTER NUMBER SIGNED_INT UCASE_LETTER WORD".split()
)
_IMPORTS = {
    "LF": r'"\\n"',
    "CR": r'"\\r"',
    "NEWLINE": r"/((\\r)?\\n)+/",
    "WS_INLINE": r"/( |\\t)+/",
    "WS": r"/( |\\t|\\f|\\r|\\n)+/",
}
# Directives and references for which there is no rewriting.
_UNKNOWN = re.compile(r"%(?!import\b|ignore\b)|\.\.|<")
# A regex of which no match can hold anything special; what it matches stays as it is.
_PLAIN_REGEX = re.compile(
    r"(?:[\w ,:;@#%&=<>!~'`-]|\\[dw.*+?()\[\]{}|^$/-]|[()*+?|{}]|\[[\w ,:;@#%&=.*+?()-]+\])*",
    re.ASCII,
)
# One class of characters, again and again.
_REPEATED = re.compile(r"(\(?)(?P<one>\.|\\[sSDW]|\[\^?(?:\\.|[^\]\\])+\])(?P<times>[*+])(\)?)")
_TERMINAL = re.compile(r"^[ \t]*_?[A-Z][A-Z0-9_]*(?:\.\d+)?[ \t]*:", re.MULTILINE)


class _NotRewritten(Exception):
    """The grammar says something that has no known form inside a JSON string."""


@lru_cache(maxsize=64)
def escaped_lark(lark: str) -> str | None:
    """Give the grammar of the same texts as they stand between the quotes of a JSON string.

    `None` where there is no rewriting of it. Control characters without a short escape are left
    out.
    """
    try:
        written = "".join(_rewritten(lark))
    except _NotRewritten:
        return None
    return written if _problem(written) is None else None


@lru_cache(maxsize=64)
def text_check(lark: str) -> Callable[[str], str | None]:
    """Give a check of finished texts against a Lark grammar, exact and with no vocabulary.

    Raises:
        ConstraintError: the engine does not take the grammar.
    """
    check_size(lark, "grammar")
    if problem := _problem(lark):
        raise ConstraintError(f"the grammar is not usable: {problem:.300}")

    def check(text: str) -> str | None:
        tokens = _byte_tokenizer().tokenize_str(text)
        matcher = _matcher(lark)
        num_taken = matcher.try_consume_tokens(tokens)
        if num_taken < len(tokens):
            return f"the text leaves the grammar after {num_taken} bytes"
        return None if matcher.is_accepting() else "the text ends before the grammar does"

    return check


def _matcher(lark: str):  # type: ignore[no-untyped-def]  # llguidance's own type
    from llguidance import LLMatcher

    return LLMatcher(_byte_tokenizer(), LLMatcher.grammar_from_lark(lark), log_level=0)


def _problem(lark: str) -> str | None:
    matcher = _matcher(lark)
    return matcher.get_error() if matcher.is_error() else None


@lru_cache(maxsize=1)
def _byte_tokenizer():  # type: ignore[no-untyped-def]  # llguidance's own type
    from llguidance import LLTokenizer

    return LLTokenizer("byte")


def _rewritten(lark: str) -> Iterator[str]:
    in_terminal, at = False, 0
    while at < len(lark):
        found = _TOKEN.match(lark, at)
        if found is None:
            raise _NotRewritten
        at = found.end()
        if found["comment"] is not None:
            continue
        if (other := found["other"]) is not None:
            in_terminal = _is_in_terminal(lark, at)
            yield _imports(other)
        elif found["string"] is not None:
            yield _string(found["string"], found["string_flag"])
        else:
            yield _regex(found["regex"][1:-1], found["regex_flags"], in_terminal=in_terminal)


def _is_in_terminal(lark: str, at: int) -> bool:
    """Whether the definition that goes on at this place is a terminal's."""
    heads = list(re.finditer(r"^[ \t]*[?!_]*(\w+)(?:\.\d+)?[ \t]*:", lark[:at], re.MULTILINE))
    return bool(heads) and bool(_TERMINAL.match(heads[-1][0]))


def _imports(text: str) -> str:
    def replaced(found: re.Match[str]) -> str:
        name = found[1]
        if name in _PLAIN_IMPORTS and "->" not in found[0]:
            return found[0]
        if name not in _IMPORTS or "->" in found[0]:
            raise _NotRewritten
        return f"{name}: {_IMPORTS[name]}"

    if _UNKNOWN.search(text):
        raise _NotRewritten
    return _IMPORT.sub(replaced, text)


def _string(literal: str, flag: str) -> str:
    try:
        text = json.loads(literal)
    except ValueError:
        raise _NotRewritten from None
    inside = json.dumps(text, ensure_ascii=False)[1:-1]
    if flag and inside != text:
        raise _NotRewritten
    return json.dumps(inside, ensure_ascii=False) + flag


def _regex(source: str, flags: str, *, in_terminal: bool) -> str:
    if _PLAIN_REGEX.fullmatch(source):
        return f"/{source}/{flags}"
    found = _REPEATED.fullmatch(source)
    if found is None or flags or in_terminal or bool(found[1]) != bool(found[4]):
        raise _NotRewritten
    one = found["one"]
    try:
        held = [char for char in _SPECIAL if re.fullmatch(one, char)]
    except re.error:
        raise _NotRewritten from None
    raw = _RAW if one == "." else f"[{one}&&{_RAW}]"
    escapes = "".join("\\" + e if e in '"\\' else e for c, e in _ESCAPES.items() if c in held)
    run = f"/{raw}+/"
    return f"({run} | /\\\\[{escapes}]/){found['times']}" if escapes else f"({run}){found['times']}"
