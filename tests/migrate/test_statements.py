"""SQL is divided where PostgreSQL ends a statement, and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_analytics.migrate.statements import split

PIECES = [
    "SELECT 1",
    "SELECT 'a;b', 'it''s;', E'\\';', U&'\\0441;'",
    'SELECT ";" AS "a"";b"',
    "DO $$ BEGIN PERFORM 1; END $$",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $body$ SELECT $$;$$; $body$",
    "CREATE FUNCTION g() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
    "CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2)",
    "SELECT 1 -- not; here\n + 1",
    "SELECT /* nor; /* here; */ ; */ 2",
    "SELECT a$b$, 1 FROM c",
    "VALUES (1.5), (-2)",
    "-5",
]


@pytest.mark.parametrize("piece", PIECES)
def test_a_statement_stays_whole(piece: str) -> None:
    assert [s.text for s in split(f"{piece};\nSELECT 2;")] == [piece, "SELECT 2"]


@given(st.lists(st.sampled_from(PIECES), max_size=6), st.sampled_from([";", ";\n", " ;\n\n-- a word; or two\n", ";;"]))
def test_any_row_of_statements_is_divided(pieces: list[str], between: str) -> None:
    assert [s.text for s in split(between.join([*pieces, ""]))] == pieces
    assert [s.text for s in split(between.join(pieces))] == pieces


@given(st.text(alphabet="a;'\"$-/*()\n\\E", max_size=30))
def test_any_text_is_divided_or_refused_by_line(text: str) -> None:
    try:
        found = split(text)
    except ValueError as exc:
        assert str(exc).startswith("line ")
    else:
        assert all(statement.text in text and statement.text.strip() for statement in found)


def test_a_statement_knows_its_line_and_its_first_line() -> None:
    [one, two] = split("\n-- about one\nCREATE TABLE a (\n  x int\n);\n\n/* about\ntwo */ SELECT 1;", first_line=10)
    assert (one.line, one.first_line) == (12, "CREATE TABLE a (")
    assert (two.line, two.first_line) == (17, "SELECT 1")


@pytest.mark.parametrize("text", ["SELECT 'a", 'SELECT "a', "SELECT $x$ a $$", "SELECT 1 /* a"])
def test_what_has_no_end_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(ValueError, match="line 2: "):
        split("SELECT 1;\n" + text)
