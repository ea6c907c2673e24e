"""The statement normaliser against any text, and against statements whose literals and comments are known."""

from __future__ import annotations

import re

from asgi_analytics.instrumentation.queries.statement import MAX_TEXT, normalise

MARK = "zq7xw"
DIGITS = "918273645"
FRAGMENTS = re.findall(
    r"\S+",
    """
SELECT * FROM INSERT INTO UPDATE SET DELETE WHERE AND IN VALUES ARRAY WITH RECURSIVE AS MERGE COPY TRUNCATE CREATE TABLE
ALTER DROP IF NOT EXISTS BEGIN COMMIT START TRANSACTION SHOW ONLY LIMIT ORDER BY DISTINCT ROWS users a.b naïve x y
"quoted" "with""quote" $1 $23 , ( ) [ ] ; = < > <= :: . + - * / % ? ?? @> #>> := && ||
""",
)
LITERALS = 16
_PRINTED = re.compile(r"[A-Z]+")


def literal(kind: int, content: str) -> str:
    """Return a literal or comment of PostgreSQL's grammar that holds the content and the mark."""
    inner = content + MARK
    quoted = inner.replace("'", "''")
    escaped = inner.replace("\\", "\\\\").replace("'", "\\'")
    plain = inner.replace("$", "").replace("*", "").replace("/", "")
    line = inner.replace("\n", " ").replace("\r", " ")
    forms = (
        f"'{quoted}'",
        f"E'{escaped}'",
        f"e'{escaped}''{MARK}'\n '{escaped}'",
        f"'{quoted}'\n'{quoted}'",
        f"U&'{quoted}'",
        f"N'{quoted}'",
        f"$${plain}$$",
        f"$tag_1${plain}$$tag$ $tag_1$",
        f"$ünï${plain}$ünï$",
        DIGITS,
        f"-{DIGITS}",
        f".{DIGITS}e-{DIGITS}",
        f"0x{DIGITS}_{DIGITS}",
        f"-- {line}\n",
        f"/* {plain} /* {plain} */ {plain} */",
        f"b'{quoted}'",
    )
    assert len(forms) == LITERALS
    return forms[kind % LITERALS]


def compose(data: bytes) -> str:
    """Read bytes as a statement of well-formed parts: a byte chooses one, and the bytes behind it fill it."""
    parts: list[str] = []
    at = 0
    while at < len(data):
        choice = data[at]
        at += 1
        if choice < 128:
            parts.append(FRAGMENTS[choice % len(FRAGMENTS)])
        else:
            length = data[at] % 16 if at < len(data) else 0
            content = data[at + 1 : at + 1 + length].decode("utf-8", "surrogateescape")
            at += 1 + length
            parts.append(literal(choice, content))
        parts.append(" " if choice % 3 else "\n\t")
    return "".join(parts)


def check(data: bytes) -> None:
    """Fail where the normaliser breaks a promise."""
    if data[:1] == b"\x01":
        statement = compose(data[1:])
        kept = normalise(statement)
        for shown in (kept.text, kept.table or "", kept.query_type):
            assert MARK not in shown.lower(), statement
            assert DIGITS not in shown, statement
    else:
        statement = data.decode("utf-8", "surrogateescape")
        kept = normalise(statement)
    assert len(kept.text) <= MAX_TEXT
    assert len(kept.text.splitlines()) <= 1, kept.text
    assert kept.table is None or (kept.table and len(kept.table) <= 200 and len(kept.table.splitlines()) == 1)
    assert re.fullmatch("[0-9a-f]{16}", kept.fingerprint)
    assert _PRINTED.fullmatch(kept.query_type), kept.query_type
    for shown in (kept.text, kept.table or ""):
        assert "\0" not in shown
        shown.encode()  # no lone surrogate
    again = normalise(kept.text)
    if len(statement) <= MAX_TEXT:  # else it may be cut in the middle of a word
        assert again.text == kept.text, statement
    assert normalise(again.text).text == again.text


SEEDS = [
    b"SELECT * FROM users WHERE id = $1 AND name = 'x' -- y",
    b"WITH a AS (SELECT 1) INSERT INTO \"My Table\" (b) VALUES (1, -2.5e3), ($$x$$, E'\\'') /* c */",
    b"COPY a.b FROM STDIN; COMMIT",
    "SELECT U&'d\\0061t' AS naïve, ARRAY[1, 2], x IN (1,2,3) FROM t".encode(),
    b"\x01" + bytes(range(1, 60)),
    b"\x01" + b"".join(bytes([128 + kind, 3, 39, 92, 34]) for kind in range(LITERALS)),
]
WORDS = [
    word.encode()
    for word in (*FRAGMENTS, "'", '"', "$$", "$a$", "E'", "U&'", 'U&"', "--", "/*", "*/", "\\", "''", '""')
]
