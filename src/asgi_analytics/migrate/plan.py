"""Which steps to run, decided from the files and the ledger alone; the database is not asked."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal

import msgspec

from asgi_analytics.errors import MigrationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asgi_analytics.database.flavour import Flavour
    from asgi_analytics.migrate.files import MigrationFile, Phase

Wanted = Literal["all", "pre", "post"]


class DriftError(MigrationError):
    """Files and ledger contradict each other; ``file`` is the name of the file."""

    def __init__(self, file: str, message: str) -> None:
        super().__init__(message)
        self.file = file


class ChangedFile(DriftError):
    """A file is not what was applied."""


class MissingFile(DriftError):
    """The ledger has a step that no file describes."""


class OutOfOrder(DriftError):
    """A pending file has a lower number than an applied one of its phase."""


class PreFirst(MigrationError):
    """``post`` was asked for while a ``pre`` step is pending."""


class Applied(msgspec.Struct, frozen=True):
    """A row of the ledger."""

    version: int
    name: str
    phase: Phase
    checksum: str
    applied_at: datetime
    duration_ms: float
    library_version: str


def pending(
    files: Sequence[MigrationFile], ledger: Iterable[Applied], flavour: Flavour, wanted: Wanted = "all"
) -> list[MigrationFile]:
    """Return the steps to run, in order: every ``pre`` by number, then every ``post``.

    The order is the same in one run and in two. Raises a `DriftError` whatever phase is wanted, and `PreFirst`.
    """
    applied = {row.version: row for row in ledger}
    by_version = {file.version: file for file in files}
    for row in applied.values():
        _compare(row, by_version.get(row.version))
    steps: list[MigrationFile] = []
    for phase in ("pre", "post"):
        mine = [file for file in files if file.phase == phase and flavour in file.flavours]
        last = max((row.version for row in applied.values() if row.phase == phase), default=0)
        todo = [file for file in mine if file.version not in applied]
        for file in todo:
            if file.version < last:
                raise OutOfOrder(
                    file.name,
                    f"{file.name} is not applied, but {applied[last].name} after it is: "
                    f"give it a number above {last:03}, or restore the files that were released",
                )
        if phase == "pre" and wanted == "post" and todo:
            raise PreFirst(f"{todo[0].name} is not applied yet: run analytics-migrate pre first")
        if wanted in ("all", phase):
            steps += todo
    return steps


def leaves_history(files: Sequence[MigrationFile], ledger: Iterable[Applied], steps: Sequence[MigrationFile]) -> bool:
    """Return whether the aggregates are to be brought up to date after these steps.

    A step that needs the history is preceded by that. Once there is such a step, it follows every later ``post``, so
    that a new aggregate holds its history.
    """
    if not steps or steps[-1].phase == "pre" or steps[-1].needs_history:
        return False
    applied = {row.version for row in ledger}
    return any(file.needs_history and (file.version in applied or file in steps) for file in files)


def _compare(row: Applied, file: MigrationFile | None) -> None:
    when = f"{row.applied_at:%Y-%m-%d} by asgi-analytics {row.library_version}"
    if file is None:
        raise MissingFile(
            row.name,
            f"{row.name} was applied on {when}, but there is no such file here: "
            "upgrade asgi-analytics to that version or a newer one, or restore the file",
        )
    if (row.name, row.phase, row.checksum) != (file.name, file.phase, file.checksum):
        raise ChangedFile(
            row.name,
            f"{file.name} is not what was applied as {row.name} on {when}: "
            "restore the file as it was, and write the change as a new step",
        )
