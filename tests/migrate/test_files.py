"""The format of a migration file: what it may say, and that what is wrong is refused by the file's name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from asgi_analytics.database.flavour import FLAVOURS
from asgi_analytics.errors import MigrationError
from asgi_analytics.migrate.files import MigrationFileError, find_migrations, read


def text(sql: str) -> bytes:
    return sql.encode()


def test_a_file_says_what_it_is_by_its_name_and_first_lines() -> None:
    file = read(
        "012_post_fill.sql",
        text("-- Fill it: slowly\n-- transaction: no\n-- history: filled\n\nSELECT 1;\n-- next\n-- why\nSELECT 2"),
    )
    assert (file.version, file.phase, file.name, file.description) == (
        12,
        "post",
        "012_post_fill.sql",
        "Fill it: slowly",
    )
    assert not file.transactional
    assert file.needs_history
    for flavour in FLAVOURS:
        assert [(s.text, s.line) for s in file.statements[flavour]] == [("SELECT 1", 5), ("SELECT 2", 8)]


def test_a_file_is_for_both_databases_and_in_one_transaction_unless_it_says_otherwise() -> None:
    file = read("001_pre_a.sql", text("-- A\nSELECT 1;"))
    assert file.flavours == FLAVOURS
    assert file.transactional
    assert not file.needs_history


def test_each_flavour_runs_its_sections_in_their_order() -> None:
    sql = (
        "-- A\n\n-- Why.\n\n-- both\nSELECT 1;\n-- timescaledb\n-- prose\nSELECT 2; SELECT 3;\n\n"
        "-- postgresql\n\nSELECT 4;\n-- both\nSELECT 5;\n"
    )
    file = read("001_pre_a.sql", text(sql))
    assert [(s.text, s.line) for s in file.statements["timescaledb"]] == [
        ("SELECT 1", 6),
        ("SELECT 2", 9),
        ("SELECT 3", 9),
        ("SELECT 5", 15),
    ]
    assert [(s.text, s.line) for s in file.statements["postgresql"]] == [
        ("SELECT 1", 6),
        ("SELECT 4", 13),
        ("SELECT 5", 15),
    ]


def test_a_file_with_one_section_is_for_that_flavour_only() -> None:
    file = read("001_pre_a.sql", text("-- A\n-- postgresql\nSELECT 1;"))
    assert file.flavours == ("postgresql",)


def test_the_sections_of_a_file_without_transaction_are_divided_each_for_itself() -> None:
    sql = "-- A\n-- transaction: no\n-- timescaledb\nSELECT 1;\n-- next\nSELECT 2;\n-- postgresql\nSELECT 3;"
    file = read("001_pre_a.sql", text(sql))
    assert [s.text for s in file.statements["timescaledb"]] == ["SELECT 1", "SELECT 2"]
    assert [s.text for s in file.statements["postgresql"]] == ["SELECT 3"]


def test_prose_may_follow_after_an_empty_line() -> None:
    file = read("001_pre_a.sql", text("-- A\n\n-- note: this is not a directive\nSELECT 1;"))
    assert [s.line for s in file.statements["postgresql"]] == [4]


def test_line_endings_and_a_byte_order_mark_do_not_change_the_checksum() -> None:
    sql = "-- A\n-- postgresql\nSELECT 1;\n"
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
        ("-- transaction: no\nSELECT 1;", "does not begin with its description"),
        ("-- A\n-- for: timescaledb\nSELECT 1;", "unknown directive 'for'"),
        ("-- A\n-- Transaction: no\nSELECT 1;", "unknown directive 'Transaction'"),
        ("-- A\n-- transaction: yes\nSELECT 1;", "expected once, as '-- transaction: no'"),
        ("-- A\n-- history: filled\n-- history: filled\nSELECT 1;", "expected once, as '-- history: filled'"),
        ("-- A\n\n-- history: filled\nSELECT 1;", "move '-- history:' directly below"),
        ("-- A\nSELECT 1;\n-- both\nSELECT 2;", "SQL before the first section"),
        ("-- A\n-- TimescaleDB\nSELECT 1;", "line 2: write this section as '-- timescaledb'"),
        ("-- A\n-- both\n-- postgresql\n", "no statement"),
        ("-- A\n-- both\nSELECT 1;\n-- postgresql\nROLLBACK;", "line 5: 'ROLLBACK': the file runs in one"),
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
    with pytest.raises(MigrationFileError, match="invalid migration file name"):
        read(name, b"-- A\nSELECT 1;")


def test_not_utf_8_is_refused() -> None:
    with pytest.raises(MigrationFileError, match=r"001_pre_a\.sql is not UTF-8"):
        read("001_pre_a.sql", b"-- \xff\nSELECT 1;")


def test_a_folder_is_read_by_number_and_other_files_are_left_alone(folder_of: Callable[..., Path]) -> None:
    steps = dict.fromkeys(("010_pre_b.sql", "002_post_a.sql", "1000_pre_c.sql"), "-- A\nSELECT 1;")
    found = find_migrations(folder_of({**steps, "README.md": "not a step"}))
    assert [file.version for file in found] == [2, 10, 1000]


def test_two_files_with_one_number_are_refused(folder_of: Callable[..., Path]) -> None:
    with pytest.raises(MigrationFileError, match=r"001_pre_b\.sql and 001_post_a\.sql have the same number"):
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
