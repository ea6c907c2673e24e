"""Divide SQL text into statements, so that an error can name the one that failed."""

from __future__ import annotations

import re

import msgspec

TOKEN = re.compile(
    r"""
      (?P<comment> --[^\n]* )
    | (?P<block> /\* )
    | (?P<string> [eE]'(?:[^'\\]|\\.|'')*' | (?:[uU]&)?'(?:[^']|'')*' | (?:[uU]&)?"(?:[^"]|"")*" )
    | (?P<dollar> \$(?:[A-Za-z_]\w*)?\$ )
    | (?P<open_quote> ['"] )
    | (?P<word> [A-Za-z_\x80-\U0010ffff][\w$]* )
    | (?P<mark> [();] )
    """,
    re.VERBOSE | re.DOTALL,
)

TRIGGER = re.compile(r"CREATE\s+TRIGGER\b", re.IGNORECASE)


class Statement(msgspec.Struct, frozen=True):
    """One SQL statement, without the comments before it and the semicolon after it."""

    text: str
    line: int
    """Where it begins in its file, from 1."""

    @property
    def first_line(self) -> str:
        """The first line, cut at 80 characters: what an error quotes."""
        return self.text.split("\n", 1)[0].strip()[:80]


def split(sql: str, first_line: int = 1) -> list[Statement]:
    """Divide at the semicolons outside quotes, comments, parentheses and ``BEGIN ATOMIC … END``.

    In SQLite the body of a trigger is such a block, too, without ATOMIC.

    Raises `ValueError` with the line when a quote or comment has no end.
    """
    found: list[Statement] = []
    start: int | None = None
    at = depth = blocks = 0
    previous = ""

    def line(position: int) -> int:
        return first_line + sql.count("\n", 0, position)

    def take(end: int) -> None:
        if start is not None:
            found.append(Statement(sql[start:end].rstrip(), line(start)))

    while match := TOKEN.search(sql, at):
        kind, text = match.lastgroup, match[0]
        if start is None and (before := sql[at : match.start()]).strip():
            start = at + len(before) - len(before.lstrip())
        at = match.end()
        if kind == "comment":
            continue
        if kind == "block":
            at = _end_of_comment(sql, match.start(), line)
            continue
        if kind == "open_quote":
            raise ValueError(f"line {line(match.start())}: a quote that opens here has no end")
        if start is None and text != ";":
            start = match.start()
        if kind == "dollar":
            end = sql.find(text, at)
            if end < 0:
                raise ValueError(f"line {line(match.start())}: {text} has no end")
            at = end + len(text)
        elif kind == "word":
            word = text.upper()
            if (word == "ATOMIC" and previous == "BEGIN") or (
                word == "BEGIN" and start is not None and TRIGGER.match(sql, start)
            ):
                blocks = 1
            elif blocks and word in ("CASE", "END"):
                blocks += 1 if word == "CASE" else -1
            previous = word
        elif text in "()":
            depth = max(0, depth + (1 if text == "(" else -1))
        elif text == ";" and not depth and not blocks:
            take(match.start())
            start = None
    rest = sql[at:]
    if start is None and rest.strip():
        start = at + len(rest) - len(rest.lstrip())
    take(len(sql))
    return found


def _end_of_comment(sql: str, start: int, line: object) -> int:
    depth = 0
    for match in re.compile(r"/\*|\*/").finditer(sql, start):
        depth += 1 if match[0] == "/*" else -1
        if not depth:
            return match.end()
    assert callable(line)
    raise ValueError(f"line {line(start)}: a comment that opens here has no end")
