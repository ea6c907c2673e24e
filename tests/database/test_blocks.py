"""SQL in named, described blocks, and that a file which breaks the format is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from asgi_analytics.database.blocks import BlockError, load, parse

TEXT = """\
-- What this file is about.

-- find_event --
-- Find an event by its id.
-- $1 is the id.
SELECT *
FROM analytics_events  -- all of them
WHERE id = $1;

-- count_events --
-- Count all events.
SELECT count(*)
FROM analytics_events
"""


def test_a_block_is_the_sql_below_its_name_and_description() -> None:
    blocks = parse(TEXT, "events.sql")
    assert blocks["find_event"] == "SELECT *\nFROM analytics_events  -- all of them\nWHERE id = $1"
    assert blocks["count_events"] == "SELECT count(*)\nFROM analytics_events"
    assert list(blocks) == ["find_event", "count_events"]


def test_a_comment_after_the_description_belongs_to_the_sql() -> None:
    blocks = parse("-- a --\n-- Answer one.\n\n-- why it is one\nSELECT 1;", "a.sql")
    assert blocks["a"] == "-- why it is one\nSELECT 1"


def test_an_unknown_block_is_an_error_that_names_the_file_and_its_blocks() -> None:
    with pytest.raises(BlockError, match=r"events\.sql has no block 'find'; it has find_event, count_events"):
        parse(TEXT, "events.sql")["find"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-- a --\n-- A.\nSELECT 1;\n-- a --\n-- B.\nSELECT 2;", "line 4: the block a is already in this file"),
        ("-- a --\nSELECT 1;", "the block a has no description"),
        ("-- a --\n\n-- too late\nSELECT 1;", "the block a has no description"),
        ("-- a --\n-- A.\n\n", "the block a has no SQL"),
        ("-- a --\n-- A.\n;", "the block a has no SQL"),
        ("SELECT 1;\n-- a --\n-- A.\nSELECT 1;", "line 1: SQL before the first block"),
        ("-- Find it --\n-- A.\nSELECT 1;", "line 1: 'Find it' is not a name"),
    ],
)
def test_a_file_that_breaks_the_format_is_refused_by_name(text: str, complaint: str) -> None:
    with pytest.raises(BlockError) as caught:
        parse(text, "a.sql")
    assert str(caught.value).startswith("a.sql")
    assert complaint in str(caught.value)


def test_a_file_of_a_package_is_loaded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "a.sql").write_text("-- a --\n-- Answer ä.\nSELECT 'ä';", "utf-8")
    monkeypatch.setattr("asgi_analytics.database.blocks.resources.files", lambda package: tmp_path)
    request.addfinalizer(load.cache_clear)
    assert load("some.package", "sql/a.sql")["a"] == "SELECT 'ä'"
    assert load("some.package", "sql/a.sql") is load("some.package", "sql/a.sql")
    with pytest.raises(FileNotFoundError):
        load("some.package", "sql/b.sql")
