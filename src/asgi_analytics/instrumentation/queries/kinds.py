"""What kind of statement it is, and which table it is about, judged by its words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_KINDS = frozenset(
    re.findall(
        r"\w+",
        """
    ABORT ALTER ANALYZE BEGIN CALL CHECKPOINT CLOSE CLUSTER COMMENT COMMIT COPY CREATE DEALLOCATE DECLARE DELETE
    DISCARD DO DROP END EXECUTE EXPLAIN FETCH GRANT IMPORT INSERT LISTEN LOAD LOCK MERGE MOVE NOTIFY PREPARE REASSIGN
    REFRESH REINDEX RELEASE REPACK RESET REVOKE ROLLBACK SAVEPOINT SECURITY SELECT SET SHOW START TABLE TRUNCATE
    UNLISTEN UPDATE VACUUM VALUES WITH
""",
    )
)
_CONTROL = frozenset(["abort", "begin", "commit", "end", "release", "rollback", "savepoint"])
_CONTROL_PAIRS = frozenset(
    [("start", "transaction"), ("prepare", "transaction"), ("set", "transaction"), ("show", "transaction")]
)
_MAIN = frozenset(["select", "insert", "update", "delete", "merge", "values", "table"])
_NOT_A_NAME = frozenset(["only", "table", "if", "not", "exists", "into", "from"])


def classify(words: list[str]) -> tuple[str, str | None, bool]:
    """Return the kind, the table if any, and whether the statement is nothing but transaction control."""
    at, end = 0, len(words)
    first = None
    while at < end:
        verb = words[at]
        if verb in ("(", ";"):
            at += 1
            continue
        following = words[at + 1] if at + 1 < end else ""
        first = first or verb
        if verb in _CONTROL or (verb, following.partition("_")[0]) in _CONTROL_PAIRS:
            try:
                at = words.index(";", at)
            except ValueError:
                break
            continue
        common: set[str] = set()
        if verb == "with":
            at = _main_statement(words, at, common)
        kind = words[at].upper()
        return kind if kind in _KINDS else "OTHER", _table(words, at, common), False
    return (first or "EMPTY").upper(), None, True


def _main_statement(words: list[str], at: int, common: set[str]) -> int:
    """Return where the main statement of a WITH begins; add the names that the WITH defines to ``common``."""
    for index in _on_its_level(words, at):
        word, before = words[index], words[index - 1]
        if before in ("with", "recursive", ","):
            if word != "recursive":
                common.add(word)
        elif word in _MAIN:
            return index
    return at


def _table(words: list[str], at: int, common: set[str]) -> str | None:
    verb = words[at]
    end = len(words)
    if verb in ("select", "delete"):
        start = _from(words, at)
    elif verb in ("alter", "create", "drop"):
        start = next((index for index in range(at + 1, min(at + 5, end)) if words[index] == "table"), end)
    elif verb in ("insert", "update", "merge", "copy", "truncate", "lock", "table"):
        start = at + 1
    else:
        return None
    while start < end and words[start] in _NOT_A_NAME:
        start += 1
    name: list[str] = []
    while start < end and (words[start][0].isalpha() or words[start][0] in '_"'):
        name.append(words[start])
        start += 2
        if start > end or words[start - 1] != ".":
            break
    if not name or (len(name) == 1 and name[0] in common):
        return None
    if verb == "select" and start <= end and words[start - 1] == "(":
        return None  # a function
    plain = (part[1:-1].replace('""', '"') if part[0] == '"' else part for part in name)
    return ".".join(plain)[:200] or None  # "" is not a name


def _from(words: list[str], at: int) -> int:
    """Return the place after the FROM at the level of the verb; the end if there is none."""
    for index in _on_its_level(words, at):
        if words[index] == "from" and words[index - 1] not in ("distinct", "rows"):
            return index + 1
        if words[index] == ";":
            break
    return len(words)


def _on_its_level(words: list[str], at: int) -> Iterator[int]:
    """Yield the places after a word within the same brackets."""
    depth = 0
    for index in range(at + 1, len(words)):
        if words[index] == "(":
            depth += 1
        elif words[index] == ")":
            depth -= 1
            if depth < 0:
                return
        elif depth == 0:
            yield index
