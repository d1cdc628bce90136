"""Regexes for JSON Schema's `format`, narrowed to what Pydantic's types take as well.

Owns the patterns; which schema gets one is `json_schema`. The engine's own formats follow their
RFCs, so they also write 23:59:60, year 0000, February 30 and `http://`, which no Python type
takes. A pattern here never holds a quote or a backslash in its language, so that a backend that
writes it raw between quotes stays within JSON.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Format:
    """What a `format` stands for: an anchored regex, and a length that it leaves open."""

    pattern: str
    max_length: int | None = None


def _whole(*alternatives: str) -> str:
    return f"^(?:{'|'.join(alternatives)})$"


def _words_except(words: Collection[str], rest: str) -> str:
    """Regex of a lower-case letter and more of the class `rest`, but none of `words`.

    The engines have no look-ahead, so this spells the complement out, letter by letter.
    """
    firsts = "".join(sorted({word[0] for word in words if word}))
    others = "".join(letter for letter in _LETTERS if letter not in firsts)
    return f"(?:[{others}][{rest}]*|{_continuations(words, firsts, rest)})"


def _continuations(words: Collection[str], firsts: str, rest: str) -> str:
    branches = []
    for first in firsts:
        tails = [word[1:] for word in words if word.startswith(first)]
        nexts = "".join(sorted({tail[0] for tail in tails if tail}))
        others = "".join(letter for letter in _LETTERS if letter not in nexts)
        others += rest.removeprefix("a-z")  # what `rest` has beside letters is in no word
        inner = f"[{others}][{rest}]*"
        if nexts:
            inner += "|" + _continuations(tails, nexts, rest)
        branches.append(f"{first}(?:{inner}){'' if '' in tails else '?'}")
    return "|".join(branches)


# --- dates and times: RFC 3339, within datetime's range --------------------------------------
_YEAR = "(?:000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})"
_LEAP = "(?:0[48]|[2468][048]|[13579][26])"
_DATE = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    f"|(?:[0-9]{{2}}{_LEAP}|{_LEAP}00)-02-29)"
)
_CLOCK = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_CLOCK}:[0-5][0-9](?:\.[0-9]{{1,6}})?(?:Z|[+-]{_CLOCK})"
# Four digits keep the sum far below timedelta's 999,999,999 days.
_COUNT = "[0-9]{1,4}"
_CLOCK_SPAN = f"T(?:{_COUNT}H(?:{_COUNT}M(?:{_COUNT}S)?)?|{_COUNT}M(?:{_COUNT}S)?|{_COUNT}S)"
_DATE_SPAN = f"(?:{_COUNT}Y(?:{_COUNT}M(?:{_COUNT}D)?)?|{_COUNT}M(?:{_COUNT}D)?|{_COUNT}D)"
_DURATION = f"P(?:{_DATE_SPAN}(?:{_CLOCK_SPAN})?|{_CLOCK_SPAN}|{_COUNT}W)"

# --- numbers of the internet ------------------------------------------------------------------
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"(?:{_BYTE}\.){{3}}{_BYTE}"
_H = "[0-9a-fA-F]{1,4}"
_IPV6 = (
    f"(?:(?:{_H}:){{7}}{_H}|(?:{_H}:){{1,7}}:|(?:{_H}:){{1,6}}:{_H}"
    + "".join(f"|(?:{_H}:){{1,{6 - n}}}(?::{_H}){{1,{n + 1}}}" for n in range(1, 5))
    + f"|{_H}:(?::{_H}){{1,6}}|:(?:(?::{_H}){{1,7}}|:)|::[fF]{{4}}:{_IPV4})"
)
_V4_BITS = "(?:[12]?[0-9]|3[0-2])"
_V6_BITS = "(?:[1-9]?[0-9]|1[01][0-9]|12[0-8])"
# A network's address has no bits after its prefix; whole bytes and groups are easy to see to.
_IPV4_NETWORK = (
    rf"(?:{_IPV4}(?:/32)?|(?:{_BYTE}\.){{3}}0/24|(?:{_BYTE}\.){{2}}0\.0/16|{_BYTE}\.0\.0\.0/8)"
)
_IPV6_NETWORK = f"(?:{_IPV6}(?:/128)?|(?:{_H}:){{3}}{_H}::/64|(?:{_H}:){{2}}{_H}::/48|::/0)"

# --- names ------------------------------------------------------------------------------------
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = rf"(?:{_LABEL}\.)*{_LABEL}"
# No two hyphens in a row: "xn--" would have to be valid Punycode.
_PLAIN_LABEL = "[A-Za-z0-9](?:-?[A-Za-z0-9]){0,30}"
# email-validator refuses RFC 6761's special top-level names.
_SPECIAL_TOP_LEVEL = ("arpa", "invalid", "local", "localhost", "onion", "test")
_TOP_LEVEL = _words_except(_SPECIAL_TOP_LEVEL, "a-z")
_EMAIL = (
    r"[A-Za-z0-9](?:\.?[A-Za-z0-9_+-]){0,31}@"
    rf"(?:{_PLAIN_LABEL}\.)+(?:[A-Z]{{2,3}}|{_TOP_LEVEL})"
)

# --- URIs: RFC 3986, as far as the WHATWG parser behind Pydantic agrees ------------------------
_ESCAPE = "%[0-9A-Fa-f]{2}"
_PATH_CHAR = rf"(?:[A-Za-z0-9._~!$&()*+,;=:@-]|{_ESCAPE})"
_NO_COLON = rf"(?:[A-Za-z0-9._~!$&()*+,;=@-]|{_ESCAPE})"
_TAIL = rf"(?:\?(?:{_PATH_CHAR}|[/?])*)?(?:#(?:{_PATH_CHAR}|[/?])*)?"
_PATH = f"(?:/{_PATH_CHAR}*)*"
# The last label of a name starts with a letter, or the parser reads the host as an IPv4 address.
_HOST = rf"(?:{_IPV4}|(?:{_PLAIN_LABEL}\.)*[A-Za-z](?:-?[A-Za-z0-9]){{0,30}})"
_AUTHORITY = f"//{_HOST}(?::[1-9][0-9]{{0,3}})?"
_SPECIAL = ("http", "https", "ws", "wss", "ftp", "file")
_OTHER_SCHEME = _words_except(_SPECIAL, "a-z0-9+.-")
_HTTP = f"https?:{_AUTHORITY}{_PATH}{_TAIL}"
_URI = (
    f"(?:(?:https?|wss?|ftp):{_AUTHORITY}{_PATH}{_TAIL}|file:///{_PATH_CHAR}+{_PATH}"
    f"|{_OTHER_SCHEME}:(?:{_AUTHORITY}{_PATH}|/?{_PATH_CHAR}+{_PATH}){_TAIL})"
)
_RELATIVE = f"(?:/(?:{_PATH_CHAR}+{_PATH})?|{_NO_COLON}+{_PATH})?{_TAIL}"
_TEMPLATE_VAR = r"\{[+#./;?&]?[A-Za-z][A-Za-z0-9_]*(?:,[A-Za-z][A-Za-z0-9_]*)*\*?\}"
_POINTER = r"(?:/(?:[A-Za-z0-9 ._$@:+-]|~[01])*)*"

_HEX4 = "[0-9a-fA-F]{4}"


def _uuid(version: str = "[0-9a-fA-F]", variant: str = "[0-9a-fA-F]") -> str:
    hex3 = "[0-9a-fA-F]{3}"
    return f"{_HEX4}{_HEX4}-{_HEX4}-{version}{hex3}-{variant}{hex3}-{_HEX4}{_HEX4}{_HEX4}"


def _base64(chars: str) -> str:
    return f"(?:[{chars}]{{4}})*(?:[{chars}][AQgw]==|[{chars}]{{2}}[AEIMQUYcgkosw048]=)?"


FORMATS: dict[str, Format] = {
    "date": Format(_whole(_DATE)),
    "time": Format(_whole(_TIME)),
    "date-time": Format(_whole(f"{_DATE}T{_TIME}")),
    "duration": Format(_whole(_DURATION)),
    "ipv4": Format(_whole(_IPV4)),
    "ipv6": Format(_whole(_IPV6)),
    "ipv4network": Format(_whole(_IPV4_NETWORK)),
    "ipv6network": Format(_whole(_IPV6_NETWORK)),
    "ipv4interface": Format(_whole(f"{_IPV4}(?:/{_V4_BITS})?")),
    "ipv6interface": Format(_whole(f"{_IPV6}(?:/{_V6_BITS})?")),
    "ipvanyaddress": Format(_whole(_IPV4, _IPV6)),
    "ipvanynetwork": Format(_whole(_IPV4_NETWORK, _IPV6_NETWORK)),
    "ipvanyinterface": Format(_whole(f"{_IPV4}(?:/{_V4_BITS})?", f"{_IPV6}(?:/{_V6_BITS})?")),
    "hostname": Format(_whole(_HOSTNAME), 253),
    "idn-hostname": Format(_whole(_HOSTNAME), 253),
    "email": Format(_whole(_EMAIL), 254),
    "idn-email": Format(_whole(_EMAIL), 254),
    "name-email": Format(_whole(_EMAIL), 254),
    "uri": Format(_whole(_URI)),
    "iri": Format(_whole(_URI)),
    "http-url": Format(_whole(_HTTP)),
    "uri-reference": Format(_whole(_URI, _RELATIVE)),
    "iri-reference": Format(_whole(_URI, _RELATIVE)),
    "uri-template": Format(_whole(f"(?:{_PATH_CHAR}|/|{_TEMPLATE_VAR})*")),
    "json-pointer": Format(_whole(_POINTER)),
    "relative-json-pointer": Format(_whole(f"(?:0|[1-9][0-9]{{0,8}})(?:#|{_POINTER})")),
    "regex": Format(r"^\^?(?:(?:[A-Za-z0-9_ :@/-]|\[(?:a-z|A-Z|0-9)+\])[*+?]?)*\$?$"),
    "uuid": Format(_whole(_uuid())),
    **{f"uuid{n}": Format(_whole(_uuid(str(n), "[89abAB]"))) for n in range(1, 9)},
    "base64": Format(_whole(_base64("A-Za-z0-9+/"))),
    "base64url": Format(_whole(_base64("A-Za-z0-9_-"))),
}
