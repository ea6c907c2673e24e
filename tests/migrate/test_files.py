"""The format of a migration file: what it may say, and that what is wrong is refused by the file's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from asgi_analytics.errors import MigrationError
from asgi_analytics.migrate.files import MigrationFileError, find_migrations, read


def text(sql: str) -> bytes:
    return sql.encode()


def test_a_file_says_what_it_is_by_its_name_and_first_lines() -> None:
    file = read(
        "012_post_fill.sql",
        text("-- Fill it: slowly\n-- for: timescaledb\n-- transaction: no\n\nSELECT 1;\n-- next\n-- why\nSELECT 2"),
    )
    assert (file.version, file.phase, file.name, file.description) == (
        12,
        "post",
        "012_post_fill.sql",
        "Fill it: slowly",
    )
    assert file.flavours == ("timescaledb",)
    assert not file.transactional
    assert [(s.text, s.line) for s in file.statements] == [("SELECT 1", 5), ("SELECT 2", 8)]


def test_a_file_is_for_both_databases_and_in_one_transaction_unless_it_says_otherwise() -> None:
    file = read("001_pre_a.sql", text("-- A\nSELECT 1;"))
    assert set(file.flavours) == {"timescaledb", "postgresql"}
    assert file.transactional


def test_prose_may_follow_after_an_empty_line() -> None:
    file = read("001_pre_a.sql", text("-- A\n\n-- note: this is no directive\nSELECT 1;"))
    assert [s.line for s in file.statements] == [4]


def test_line_endings_and_a_byte_order_mark_do_not_change_the_checksum() -> None:
    sql = "-- A\n-- for: postgresql\nSELECT 1;\n"
    checksums = {
        read("001_pre_a.sql", content).checksum
        for content in (
            text(sql),
            text(sql.replace("\n", "\r\n")),
            text(sql.replace("\n", "\r")),
            b"\xef\xbb\xbf" + text(sql),
        )
    }
    assert len(checksums) == 1
    assert read("001_pre_a.sql", text(sql + " ")).checksum not in checksums


@pytest.mark.parametrize(
    ("sql", "complaint"),
    [
        ("SELECT 1;", "does not begin with its description"),
        ("\n-- A\nSELECT 1;", "does not begin with its description"),
        ("--\nSELECT 1;", "does not begin with its description"),
        ("-- for: timescaledb\nSELECT 1;", "does not begin with its description"),
        ("-- A\n-- fro: timescaledb\nSELECT 1;", "unknown directive 'fro'"),
        ("-- A\n-- For: timescaledb\nSELECT 1;", "unknown directive 'For'"),
        ("-- A\n-- for: oracle\nSELECT 1;", "expected once, with one of timescaledb, postgresql"),
        ("-- A\n-- for: timescaledb\n-- for: postgresql\nSELECT 1;", "expected once"),
        ("-- A\n-- transaction: yes\nSELECT 1;", "expected once, with one of no"),
        ("-- A\n\n-- for: timescaledb\nSELECT 1;", "move '-- for:' directly below"),
        ("-- A\nSELECT 1;\n-- transaction: no\n", "move '-- transaction:' directly below"),
        ("-- A\nSELECT 1;\n-- next\nSELECT 2;", "'-- next' stands only in a file with '-- transaction: no'"),
        ("-- A\n-- transaction: no\nSELECT 1; SELECT 2;", "2 statements from line 3 on"),
        ("-- A\n-- transaction: no\nSELECT 1;\n-- next\n", "0 statements from line 4 on"),
        ("-- A\n", "no statement"),
        ("-- A\nSELECT 1;\nCOMMIT;", "line 3: 'COMMIT': the file runs in one transaction"),
        ("-- A\nbegin;\nSELECT 1;", "line 2: 'begin'"),
        ("-- A\nSELECT 'x;", "line 2: a quote"),
    ],
)
def test_what_is_wrong_is_refused_and_the_file_named(sql: str, complaint: str) -> None:
    with pytest.raises(MigrationFileError) as caught:
        read("007_pre_a.sql", text(sql))
    assert str(caught.value).startswith("007_pre_a.sql")
    assert complaint in str(caught.value)


@pytest.mark.parametrize("name", ["01_pre_a.sql", "001_a.sql", "001_mid_a.sql", "001_pre_.sql", "001_pre_A b.sql"])
def test_a_name_out_of_the_scheme_is_refused(name: str) -> None:
    with pytest.raises(MigrationFileError, match="is no name of a step"):
        read(name, b"-- A\nSELECT 1;")


def test_not_utf_8_is_refused() -> None:
    with pytest.raises(MigrationFileError, match=r"001_pre_a\.sql is not UTF-8"):
        read("001_pre_a.sql", b"-- \xff\nSELECT 1;")


def test_a_folder_is_read_by_number_and_other_files_are_left_alone(folder_of: Callable[..., Path]) -> None:
    steps = dict.fromkeys(("010_pre_b.sql", "002_post_a.sql", "1000_pre_c.sql"), "-- A\nSELECT 1;")
    found = find_migrations(folder_of({**steps, "README.md": "no step"}))
    assert [file.version for file in found] == [2, 10, 1000]


def test_two_files_with_one_number_are_refused(folder_of: Callable[..., Path]) -> None:
    with pytest.raises(MigrationFileError, match=r"001_pre_b\.sql and 001_post_a\.sql have one number"):
        find_migrations(folder_of({"001_post_a.sql": "-- A\nSELECT 1;", "001_pre_b.sql": "-- B\nSELECT 1;"}))


def test_an_installation_without_its_migrations_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("asgi_analytics.migrate.files.resources.files", lambda package: tmp_path / "a" / "b")
    with pytest.raises(MigrationError, match="install asgi-analytics again"):
        find_migrations()


@pytest.mark.parametrize("place", ["wheel", "checkout"])
def test_the_shipped_files_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str) -> None:
    package = tmp_path / "src" / "asgi_analytics"
    migrations = package / "migrations" if place == "wheel" else tmp_path / "migrations"
    migrations.mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    (migrations / "001_pre_a.sql").write_text("-- A\nSELECT 1;")
    monkeypatch.setattr("asgi_analytics.migrate.files.resources.files", lambda name: package)
    assert [file.name for file in find_migrations()] == ["001_pre_a.sql"]
