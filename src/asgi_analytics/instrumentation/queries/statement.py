"""What may be kept of a SQL statement: its text without literals and comments, a fingerprint, its kind and its table.

It follows PostgreSQL's lexical rules. Any text is accepted: what is not SQL is cut into words all the same, in time
linear in its length, and a quote that never ends takes the rest of the text with it.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import NamedTuple

from asgi_analytics.instrumentation.queries.kinds import classify

MAX_TEXT = 2_000
"""Characters of a statement that are kept."""

MAX_WORDS = 5_000
"""Words of a statement that are read. Its text is full long before; only an enormous list can come this far."""

MEMO_SIZE = 2_048
"""Statements that are remembered. When they are too many, all of them are forgotten."""

LONG = 4_096
"""Characters from which a statement is remembered by its hash: literals in statements must not fill the memory."""


class Statement(NamedTuple):
    """What is known of a statement."""

    text: str
    """Without literals (``?``) and comments, on one line, cut at `MAX_TEXT` characters. ``$1`` stays."""
    fingerprint: str
    """16 hex digits, the same for statements that differ in literals, spaces, case, numbering or length of lists."""
    query_type: str
    """SELECT, INSERT and so on: of the main statement of a WITH, of the first that does something in a script."""
    table: str | None
    """The table that it is about, if any."""
    is_control: bool
    """Whether it only begins, ends or describes a transaction or a session, or is empty."""
    is_read: bool
    """Whether the rows that come back are all there is to count."""


# Identifiers hold any character beyond ASCII, also what Python calls a space.
_WORD = r"[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*+"
_BREAK = r"(?:[ \t\f\v]|--[^\n\r]*+)*+[\n\r](?:[ \t\n\r\f\v]|--[^\n\r]*+[\n\r])*+"
_ESCAPED = r"'(?:[^'\\]++|\\.?+|'')*+(?:'|\Z)"
# Nothing here can backtrack: every repetition is possessive and what ends a quote is optional.
_TOKEN = re.compile(
    rf"""
    ([ \t\n\r\f\v]++ | --[^\n\r]*+)                                   # 1 space
  | (/\*)                                                             # 2 comment, nested: its end is looked for
  | ( [eE]{_ESCAPED} (?: {_BREAK} {_ESCAPED} )*+                      # 3 literal: E'…', goes on after a line break
    | (?: [bBxXnN] | [uU]& )?+ '(?:[^']++|'')*+ '?+
    )
  | ( (?: [0-9] | \.[0-9] ) (?: [eE][+-][0-9] | [0-9A-Za-z_.\x80-\U0010ffff] )*+ )  # 4 number
  | (\$[0-9]++)                                                       # 5 parameter
  | ( \$ (?: {_WORD} )?+ \$ )                                         # 6 dollar quote: its end is looked for
  | ( (?:[uU]&)?+ "(?:[^"]++|"")*+ ("?+) )                            # 7 quoted identifier, 8 its end
  | ( [A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*+ )        # 9 word
  | ( :: | [<>=!~@\#%^&|`?*+]++ | . )                                 # 10 operator; no - and / that start comments
    """,
    re.DOTALL | re.VERBOSE,
)
# PostgreSQL accepts these inside quotes only; as text they would move a terminal's cursor, or be refused.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_BLANK = re.compile(r"[\t\n\r\f\v]")
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_BEFORE_A_SIGN = frozenset("([,=<>+*/%") | {"<=", ">=", "<>", "!="}

_ABOUT_THE_SESSION = frozenset(  # what SQLAlchemy and asyncpg ask when they connect, in exactly these words
    [
        "select pg_catalog.version()",
        "select current_schema()",
        "show standard_conforming_strings",
        "SELECT pg_catalog.pg_is_in_recovery()",
    ]
)
# Threads share the memo without a lock: each step is one operation of a dict, and at worst a statement is read twice.
_memo: dict[str, Statement] = {}
_long_memo: dict[tuple[int, int], Statement] = {}


def normalise(statement: str) -> Statement:
    """Return what may be kept of a statement: the same object for the same text, as long as it is remembered."""
    known = _memo.get(statement)
    return _learn(statement) if known is None else known


def fingerprint_of(key: str) -> str:
    """Return 16 hex digits that stand for a text."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _learn(statement: str) -> Statement:
    if len(statement) > LONG:
        key = (len(statement), hash(statement))
        known = _long_memo.get(key)
        if known is None:
            if len(_long_memo) >= MEMO_SIZE // 8:
                _long_memo.clear()
            known = _long_memo[key] = _read(statement)
        return known
    if len(_memo) >= MEMO_SIZE:
        _memo.clear()
    known = _memo[statement] = _read(statement)
    return known


def _read(statement: str) -> Statement:
    text, words = _cut(_UNPRINTABLE.sub("\ufffd", statement))
    query_type, table, is_control = classify(words)
    is_control = is_control or text in _ABOUT_THE_SESSION
    is_read = query_type in ("SELECT", "VALUES", "TABLE", "SHOW") and "into" not in words
    fingerprint = fingerprint_of(" ".join(_collapse(words)))
    return Statement(text, fingerprint, query_type, table, is_control, is_read)


def _cut(sql: str) -> tuple[str, list[str]]:
    """Return the text without literals and comments, and its words: in lower case, ``?`` for each value."""
    match_at = _TOKEN.match
    parts: list[str] = []
    words: list[str] = []
    at, end, room, space = 0, len(sql), MAX_TEXT, False
    for _ in range(MAX_WORDS):
        if at >= end:
            break
        match = match_at(sql, at)
        assert match is not None  # the last alternative takes any character
        kind = match.lastindex
        start, at = at, match.end()
        if kind == 1:
            space = True
            continue
        if kind == 2:
            at, space = _comment_end(sql, start), True
            continue
        if kind == 9 or kind == 10:
            shown = sql[start : min(at, start + MAX_TEXT)]
            word = shown.lower()
        elif kind == 5:
            shown, word = sql[start : min(at, start + 12)], "?"
        elif kind == 7:
            shown = word = _BLANK.sub(" ", sql[start : min(at, start + MAX_TEXT)]) if match[8] else "?"
        else:
            shown = word = "?"
            if kind == 6:
                closing = sql.find(match[6], at)
                at = end if closing < 0 else closing + len(match[6])
            elif kind == 4 and not space and _ends_with_a_sign(words):  # -1 is one number, not two things
                words.pop()
                if room > 0:
                    sign = parts.pop()
                    room += len(sign)
                    space = sign[0] == " "
        words.append(word)
        if room > 0:
            if space and parts:
                shown = " " + shown
            parts.append(shown)
            room -= len(shown)
        space = False
    return "".join(parts)[:MAX_TEXT].strip(" ;"), words


def _ends_with_a_sign(words: list[str]) -> bool:
    return bool(words) and words[-1] in "+-" and (len(words) == 1 or words[-2] in _BEFORE_A_SIGN)


def _comment_end(sql: str, start: int) -> int:
    depth = 0
    for edge in _COMMENT_EDGE.finditer(sql, start):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(sql)


def _collapse(words: list[str]) -> list[str]:
    """Return the words with lists of values, and repeated rows, made as long as one."""
    out: list[str] = []
    groups: list[tuple[int, int, int, bool]] = []  # where it opened; its last two elements; whether it lists values
    opened, before, element, lists_values = -1, -1, 0, False
    for word in words:
        if word in ("(", "["):
            groups.append((opened, before, element, lists_values))
            lists_values = bool(out) and out[-1] in ("in", "array")
            out.append(word)
            opened, before, element = len(out) - 1, -1, len(out)
        elif word in (",", ")", "]"):
            if lists_values and before >= 0 and out[element:] == out[before : element - 1]:
                del out[element - 1 :]
            else:
                before = element
            out.append(word)
            element = len(out)
            if word != "," and groups:
                size = len(out) - opened
                first = opened - 1 - size
                if first >= 0 and out[opened - 1] == "," and out[opened:] == out[first : opened - 1]:
                    del out[opened - 1 :]  # (…), (…): the second row like the first
                    opened, before, element, lists_values = groups.pop()
                    element, before = before, -1
                else:
                    opened, before, element, lists_values = groups.pop()
        else:
            out.append(word)
    while out and out[-1] == ";":
        out.pop()
    return out
