"""The migration files: one step each, ``NNN_{pre,post}_<what>.sql``, described by its first lines.

The first line is ``-- <description>``; lines directly below may say ``-- for: timescaledb`` or ``-- for: postgresql``
(without: both) and ``-- transaction: no``. Such a file is a row of single statements with a line ``-- next`` between
them, each safe to repeat; any other file is applied whole or not at all.
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from asgi_analytics.errors import MigrationError
from asgi_analytics.migrate.statements import Statement, split

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

Flavour = Literal["timescaledb", "postgresql"]
Phase = Literal["pre", "post"]

FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)
NAME = re.compile(r"(?P<version>\d{3,})_(?P<phase>pre|post)_[a-z0-9_]+\.sql")
DIRECTIVE = re.compile(r"--\s*(?P<key>[A-Za-z][\w-]*)\s*:\s*(?P<value>.*?)\s*")
STRAY = re.compile(r"^--[ \t]*(for|transaction)[ \t]*:", re.MULTILINE | re.IGNORECASE)
NEXT = re.compile(r"^-- next[ \t]*$", re.MULTILINE)
ENDS_TRANSACTION = re.compile(r"(BEGIN|START|COMMIT|END|ROLLBACK|ABORT|PREPARE\s+TRANSACTION)\b", re.IGNORECASE)


class MigrationFileError(MigrationError):
    """A migration file is not written as the format demands; the message names it."""


class MigrationFile(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the schema."""

    version: int
    phase: Phase
    name: str
    """Of the file, without its folder."""
    description: str
    flavours: tuple[Flavour, ...]
    """The databases it is for."""
    transactional: bool
    """Applied in one transaction together with its ledger row."""
    sql: str
    statements: tuple[Statement, ...]
    checksum: str


def shipped_folder() -> Traversable:
    """Return the folder of the migrations of this package: inside the wheel, or at the top of a source checkout."""
    package = resources.files("asgi_analytics")
    shipped = package.joinpath("migrations")
    if shipped.is_dir():
        return shipped
    if isinstance(package, Path):
        checkout = package.parents[1]
        if (checkout / "pyproject.toml").is_file() and (checkout / "migrations").is_dir():
            return checkout / "migrations"
    raise MigrationError("the migration files are not in this installation: install asgi-analytics again")


def find_migrations(folder: Traversable | None = None) -> tuple[MigrationFile, ...]:
    """Return the steps of a folder, the shipped one by default, by number. Raises `MigrationFileError`."""
    files: dict[int, MigrationFile] = {}
    for entry in sorted((folder or shipped_folder()).iterdir(), key=lambda entry: entry.name):
        if not entry.name.endswith(".sql"):
            continue
        file = read(entry.name, entry.read_bytes())
        if file.version in files:
            raise MigrationFileError(
                f"{file.name} and {files[file.version].name} have one number: renumber one of them"
            )
        files[file.version] = file
    return tuple(files[version] for version in sorted(files))


def read(name: str, content: bytes) -> MigrationFile:
    """Read one step from its file's name and content. Raises `MigrationFileError`."""
    matched = NAME.fullmatch(name)
    if matched is None:
        raise MigrationFileError(f"{name} is no name of a step: expected NNN_pre_<what>.sql or NNN_post_<what>.sql")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise MigrationFileError(f"{name} is not UTF-8") from None
    sql = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = sql.split("\n")
    described = re.fullmatch(r"--\s*(\S.*?)\s*", lines[0])
    if described is None or DIRECTIVE.fullmatch(lines[0]):
        raise MigrationFileError(f"{name} does not begin with its description: -- <what this step does>")
    directives, length = _directives(name, lines[1:])
    body = "\n".join(lines[1 + length :])
    if stray := STRAY.search(body):
        raise MigrationFileError(f"{name}: move {stray[0]!r} directly below the first line, where directives stand")
    transactional = directives.get("transaction") != "no"
    return MigrationFile(
        version=int(matched["version"]),
        phase="pre" if matched["phase"] == "pre" else "post",
        name=name,
        description=described[1],
        flavours=tuple(flavour for flavour in FLAVOURS if directives.get("for", flavour) == flavour),
        transactional=transactional,
        sql=sql,
        statements=_statements(name, body, 2 + length, transactional),
        checksum=hashlib.sha256(sql.encode()).hexdigest(),
    )


def _directives(name: str, lines: list[str]) -> tuple[dict[str, str], int]:
    known = {"for": FLAVOURS, "transaction": ("no",)}
    found: dict[str, str] = {}
    for line in lines:
        matched = DIRECTIVE.fullmatch(line)
        if matched is None:
            break
        key, value = matched["key"], matched["value"]
        if key not in known:
            raise MigrationFileError(f"{name}: unknown directive {key!r}; known: {', '.join(known)}")
        if value not in known[key] or key in found:
            raise MigrationFileError(f"{name}: {line.strip()!r}: expected once, with one of {', '.join(known[key])}")
        found[key] = value
    return found, len(found)


def _statements(name: str, body: str, first_line: int, transactional: bool) -> tuple[Statement, ...]:
    try:
        if transactional:
            if NEXT.search(body):
                raise ValueError("'-- next' stands only in a file with '-- transaction: no'")
            found = split(body, first_line)
            if not found:
                raise ValueError("no statement")
            for statement in found:
                if ENDS_TRANSACTION.match(statement.text):
                    raise ValueError(
                        f"line {statement.line}: {statement.first_line!r}: the file runs in one transaction; "
                        "say '-- transaction: no' if it may not"
                    )
            return tuple(found)
        pieces: list[Statement] = []
        at = 0
        for end in [match.start() for match in NEXT.finditer(body)] + [len(body)]:
            line = first_line + body.count("\n", 0, at)
            found = split(body[at:end], line)
            if len(found) != 1:
                raise ValueError(
                    f"{len(found)} statements from line {line} on: a line '-- next' stands between any two"
                )
            pieces += found
            at = end
        return tuple(pieces)
    except ValueError as exc:
        raise MigrationFileError(f"{name}: {exc}") from None
