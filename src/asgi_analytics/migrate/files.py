"""The migration files: one step each, ``NNN_{pre,post}_<what>.sql``, described by its first lines.

The first line is ``-- <description>``. Lines directly below may say ``-- transaction: no`` or ``-- history: filled``.
A line ``-- timescaledb``, ``-- postgresql`` or ``-- both`` begins a section for that flavour; without any, the file is
for both. A step runs the sections of its flavour in their order, and is skipped by a flavour that has none.

A file is applied whole or not at all. With ``-- transaction: no`` each statement is applied by itself: a line
``-- next`` stands between any two, and each must be safe to repeat. With ``-- history: filled`` the aggregates are
brought up to date before the step, for instance because it lets old events be dropped.
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from asgi_analytics.database.flavour import FLAVOURS, Flavour
from asgi_analytics.errors import MigrationError
from asgi_analytics.migrate.statements import Statement, split

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

Phase = Literal["pre", "post"]

NAME = re.compile(r"(?P<version>\d{3,})_(?P<phase>pre|post)_[a-z0-9_]+\.sql")
DIRECTIVE = re.compile(r"--\s*(?P<key>[A-Za-z][\w-]*)\s*:\s*(?P<value>.*?)\s*")
DIRECTIVES = {"transaction": "no", "history": "filled"}
STRAY = re.compile(r"^--[ \t]*(transaction|history)[ \t]*:", re.MULTILINE | re.IGNORECASE)
SECTION = re.compile(r"^--[ \t]*(?P<name>both|timescaledb|postgresql)[ \t]*$", re.MULTILINE | re.IGNORECASE)
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
    transactional: bool
    """Applied in one transaction together with its ledger row."""
    needs_history: bool
    """The aggregates are brought up to date before this step."""
    statements: dict[Flavour, tuple[Statement, ...]]
    """What to run, for the flavours that the step is for."""
    checksum: str

    @property
    def flavours(self) -> tuple[Flavour, ...]:
        """The flavours that the step is for."""
        return tuple(self.statements)


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
    raise MigrationError("the migration files are missing from this installation: install asgi-analytics again")


def find_migrations(folder: Traversable | None = None) -> tuple[MigrationFile, ...]:
    """Return the steps of a folder, the shipped one by default, by number. Raises `MigrationFileError`."""
    files: dict[int, MigrationFile] = {}
    for entry in sorted((folder or shipped_folder()).iterdir(), key=lambda entry: entry.name):
        if not entry.name.endswith(".sql"):
            continue
        file = read(entry.name, entry.read_bytes())
        if file.version in files:
            raise MigrationFileError(
                f"{file.name} and {files[file.version].name} have the same number: renumber one of them"
            )
        files[file.version] = file
    return tuple(files[version] for version in sorted(files))


def read(name: str, content: bytes) -> MigrationFile:
    """Read one step from its file's name and content. Raises `MigrationFileError`."""
    matched = NAME.fullmatch(name)
    if matched is None:
        raise MigrationFileError(
            f"invalid migration file name: {name}; expected NNN_pre_<what>.sql or NNN_post_<what>.sql"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise MigrationFileError(f"{name} is not UTF-8") from None
    sql = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = sql.split("\n")
    described = re.fullmatch(r"--\s*(\S.*?)\s*", lines[0])
    if described is None or DIRECTIVE.fullmatch(lines[0]):
        raise MigrationFileError(f"{name} does not begin with its description: -- <what this step does>")
    directives = _directives(name, lines[1:])
    length = 1 + len(directives)
    body = "\n".join(lines[length:])
    if stray := STRAY.search(body):
        raise MigrationFileError(f"{name}: move {stray[0]!r} directly below the first line, where directives stand")
    transactional = "transaction" not in directives
    try:
        statements = _by_flavour(body, 1 + length, transactional)
    except ValueError as exc:
        raise MigrationFileError(f"{name}: {exc}") from None
    return MigrationFile(
        version=int(matched["version"]),
        phase="pre" if matched["phase"] == "pre" else "post",
        name=name,
        description=described[1],
        transactional=transactional,
        needs_history="history" in directives,
        statements=statements,
        checksum=hashlib.sha256(sql.encode()).hexdigest(),
    )


def _directives(name: str, lines: list[str]) -> set[str]:
    found: set[str] = set()
    for line in lines:
        matched = DIRECTIVE.fullmatch(line)
        if matched is None:
            break
        key = matched["key"]
        if key not in DIRECTIVES:
            raise MigrationFileError(f"{name}: unknown directive {key!r}; known: {', '.join(DIRECTIVES)}")
        if matched["value"] != DIRECTIVES[key] or key in found:
            raise MigrationFileError(f"{name}: {line.strip()!r}: expected once, as '-- {key}: {DIRECTIVES[key]}'")
        found.add(key)
    return found


def _by_flavour(body: str, first_line: int, transactional: bool) -> dict[Flavour, tuple[Statement, ...]]:
    """Return the statements of each flavour that has any. Raises `ValueError` with the line."""
    found: dict[Flavour, tuple[Statement, ...]] = dict.fromkeys(FLAVOURS, ())
    for name, sql, line in _sections(body, first_line):
        statements = _statements(sql, line, transactional)
        for flavour in FLAVOURS:
            if name in ("both", flavour):
                found[flavour] += statements
    if not any(found.values()):
        raise ValueError("no statement")
    return {flavour: statements for flavour, statements in found.items() if statements}


def _sections(body: str, first_line: int) -> list[tuple[str, str, int]]:
    """Return the name, the SQL and the first line of each section."""
    headers = list(SECTION.finditer(body))
    if not headers:
        return [("both", body, first_line)]
    if split(body[: headers[0].start()], first_line):
        raise ValueError(f"SQL before the first section: move it below {headers[0][0]!r}, or below a '-- both'")
    sections = []
    for header, end in zip(headers, [*(header.start() for header in headers[1:]), len(body)], strict=True):
        line = first_line + body.count("\n", 0, header.start())
        if header[0].rstrip() != f"-- {header['name'].lower()}":
            raise ValueError(f"line {line}: write this section as '-- {header['name'].lower()}'")
        sections.append((header["name"], body[header.end() : end], line))
    return sections


def _statements(sql: str, first_line: int, transactional: bool) -> tuple[Statement, ...]:
    if transactional:
        if NEXT.search(sql):
            raise ValueError("'-- next' stands only in a file with '-- transaction: no'")
        found = split(sql, first_line)
        for statement in found:
            if ENDS_TRANSACTION.match(statement.text):
                raise ValueError(
                    f"line {statement.line}: {statement.first_line!r}: the file runs in one transaction; "
                    "write '-- transaction: no' if it must not"
                )
        return tuple(found)
    pieces: list[Statement] = []
    at = 0
    for end in [match.start() for match in NEXT.finditer(sql)] + [len(sql)]:
        line = first_line + sql.count("\n", 0, at)
        found = split(sql[at:end], line)
        if len(found) != 1:
            raise ValueError(f"{len(found)} statements from line {line} on: put a line '-- next' between any two")
        pieces += found
        at = end
    return tuple(pieces)
