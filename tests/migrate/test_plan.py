"""The plan: which steps run in which order, and which contradictions of files and ledger are refused."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_analytics.database.flavour import Flavour
from asgi_analytics.migrate.files import MigrationFile, read
from asgi_analytics.migrate.plan import Applied, ChangedFile, MissingFile, OutOfOrder, PreFirst, Wanted, pending


def step(version: int, phase: str, only: str = "", sql: str = "SELECT 1;") -> MigrationFile:
    section = f"-- {only}\n" if only else ""
    return read(f"{version:03}_{phase}_a.sql", f"-- A\n{section}{sql}".encode())


def applied(*files: MigrationFile) -> list[Applied]:
    when = datetime(2026, 11, 20, tzinfo=UTC)
    return [
        Applied(
            version=f.version, name=f.name, phase=f.phase, checksum=f.checksum,
            applied_at=when, duration_ms=1.0, library_version="0.1.0",
        )
        for f in files
    ]  # fmt: skip


def versions(files: list[MigrationFile]) -> list[int]:
    return [file.version for file in files]


FILES = [step(1, "pre"), step(2, "post"), step(3, "pre", "timescaledb"), step(4, "post"), step(5, "pre", "postgresql")]


@pytest.mark.parametrize(
    ("flavour", "wanted", "expected"),
    [
        ("timescaledb", "all", [1, 3, 2, 4]),
        ("postgresql", "all", [1, 5, 2, 4]),
        ("timescaledb", "pre", [1, 3]),
    ],
)
def test_pre_runs_by_number_then_post_by_number_for_this_database(
    flavour: Flavour, wanted: Wanted, expected: list[int]
) -> None:
    assert versions(pending(FILES, [], flavour, wanted)) == expected


def test_post_is_refused_while_pre_is_pending() -> None:
    with pytest.raises(PreFirst, match=r"001_pre_a\.sql is not applied yet: run analytics-migrate pre first"):
        pending(FILES, [], "timescaledb", "post")
    done = applied(FILES[0], FILES[2])
    assert versions(pending(FILES, done, "timescaledb", "post")) == [2, 4]


def test_a_pre_of_the_next_release_may_follow_a_higher_post() -> None:
    assert versions(pending(FILES, applied(FILES[0], FILES[1], FILES[3]), "timescaledb")) == [3]


def test_a_changed_file_is_named() -> None:
    changed = [step(1, "pre", sql="SELECT 2;"), *FILES[1:]]
    with pytest.raises(ChangedFile, match=r"001_pre_a\.sql is not what was applied .* on 2026-11-20") as caught:
        pending(changed, applied(FILES[0]), "timescaledb", "post")
    assert caught.value.file == "001_pre_a.sql"


def test_a_file_that_changed_its_phase_is_a_changed_file() -> None:
    with pytest.raises(ChangedFile, match=r"001_post_a\.sql .* as 001_pre_a\.sql"):
        pending([step(1, "post")], applied(FILES[0]), "timescaledb")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(MissingFile, match=r"001_pre_a\.sql was applied .* no such file here: upgrade"):
        pending(FILES[1:], applied(FILES[0]), "timescaledb")


def test_a_file_below_an_applied_one_of_its_phase_is_named() -> None:
    late = [*FILES, step(6, "pre")]
    with pytest.raises(OutOfOrder, match=r"001_pre_a\.sql is not applied, but 006_pre_a\.sql after it is"):
        pending(late, applied(late[-1]), "timescaledb")


def test_a_file_for_the_other_database_is_never_out_of_order() -> None:
    files = [*FILES, step(6, "pre")]
    assert versions(pending(files, applied(files[0], files[2], files[5]), "timescaledb", "pre")) == []


@given(
    st.lists(st.sampled_from(["pre", "post"]), max_size=8),
    st.integers(0, 8),
    st.sampled_from(["timescaledb", "postgresql"]),
)
def test_all_is_pre_and_then_post(phases: list[str], released: int, flavour: Flavour) -> None:
    files = [step(number, phase) for number, phase in enumerate(phases, 1)]
    before = applied(*files[:released])
    first = pending(files, before, flavour, "pre")
    then = pending(files, before + applied(*first), flavour, "post")
    assert pending(files, before, flavour, "all") == first + then
    assert pending(files, before + applied(*first, *then), flavour, "all") == []
