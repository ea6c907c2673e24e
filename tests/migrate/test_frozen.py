"""A released step never changes: `migrations/frozen.txt` has the hash of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from asgi_analytics.migrate.files import find_migrations

FOLDERS = [Path(__file__).parent.parent.parent / "migrations" / name for name in (".", "sqlite")]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_frozen_step_is_what_it_was(folder: Path) -> None:
    lines = [
        line.split() for line in (folder / "frozen.txt").read_text("utf-8").splitlines() if not line.startswith("#")
    ]
    frozen = {name: checksum for checksum, name in lines}
    found = {file.name: file.checksum for file in find_migrations(folder) if file.name in frozen}
    assert found == frozen, "write the change as a new step: databases have applied these files as they were"
    assert len(frozen) == len(lines)


@pytest.mark.parametrize("folder", FOLDERS)
def test_steps_are_frozen_in_their_order(folder: Path) -> None:
    """The steps of a release are added below those of the releases before; one in between would be out of order."""
    lines = [
        line.split() for line in (folder / "frozen.txt").read_text("utf-8").splitlines() if not line.startswith("#")
    ]
    for phase in ("pre", "post"):
        names = [name for _, name in lines if f"_{phase}_" in name]
        assert names
        assert names == sorted(names)
        shipped = [file.name for file in find_migrations(folder) if file.phase == phase]
        assert shipped[: len(names)] == names
