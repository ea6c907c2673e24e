"""What may be kept of a statement, and what must not: on SQL, and on any text."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_analytics.instrumentation.queries import statement as sql
from asgi_analytics.instrumentation.queries.statement import MAX_TEXT, normalise


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("SELECT 1", "SELECT ?"),
        ("  select\n\t*  from t ;  ", "select * from t"),
        ("SELECT * FROM t WHERE a = 'it''s' AND b = $1", "SELECT * FROM t WHERE a = ? AND b = $1"),
        ("SELECT $1, $2::text, $10", "SELECT $1, $2::text, $10"),
        (r"SELECT E'it\'s', e'\\', 'back\', b", "SELECT ?, ?, ?, b"),
        ("SELECT E'a\\'b'\n  'c\\'d', e", "SELECT ?, e"),
        ("SELECT E'a' -- more\n 'c\\'secret'", "SELECT ?"),
        (r"SELECT U&'d\0061t', U&" + r'"d\0061t", B' + "'01', x'ff', N'n'", r'SELECT ?, U&"d\0061t", ?, ?, ?'),
        ("SELECT $$it's$$, $a$ $b$ $$ $a$, a$b$c", "SELECT ?, ?, a$b$c"),
        ("SELECT 1.5, .5, 1e-10, 0xFF, 1_000, -3, x-1, (-2), 2 - 1", "SELECT ?, ?, ?, ?, ?, ?, x-?, (?), ? - ?"),
        ("SELECT/* a /* nested */ b */1-- end\n+2", "SELECT ? +?"),
        ('SELECT "a ""quoted"" name" FROM t1', 'SELECT "a ""quoted"" name" FROM t1'),
        ("SELECT a::int, b->>'key', c @> '{}', d ? 'e'", "SELECT a::int, b->>?, c @> ?, d ? ?"),
        ("SELECT 'never ends and is secret", "SELECT ?"),
        ("SELECT E'never ends \\' secret", "SELECT ?"),
        ("SELECT E'\\", "SELECT ?"),
        ("SELECT $a$ never ends secret", "SELECT ?"),
        ('SELECT "never ends and is secret', "SELECT ?"),
        ("SELECT 1 /* never ends secret", "SELECT ?"),
        ("SELECT 'a\x00b', \x00, \ud800 FROM t", "SELECT ?, \ufffd, \ufffd FROM t"),
        (
            'SELECT "a\n\tb", c\x1b[31m, "d\x1b\x9b\u2028e" FROM t',
            'SELECT "a  b", c\ufffd[?, "d\ufffd\ufffd\ufffde" FROM t',
        ),
        ("", ""),
        ("é'é'é", "é?é"),
    ],
)
def test_literals_and_comments_go(statement: str, text: str) -> None:
    assert normalise(statement).text == text


@pytest.mark.parametrize(
    ("statement", "query_type", "table"),
    [
        ("select 1", "SELECT", None),
        ("-- who\n/* why */ SELECT * FROM public.t", "SELECT", "public.t"),
        ("((SELECT a FROM t)) UNION (SELECT b FROM u)", "SELECT", "t"),
        ("SELECT extract(year FROM d) FROM ONLY T", "SELECT", "t"),
        ("SELECT a IS DISTINCT FROM b FROM t", "SELECT", "t"),
        ("SELECT * FROM (SELECT * FROM t) x", "SELECT", None),
        ("SELECT * FROM generate_series(1, 2)", "SELECT", None),
        ('INSERT INTO "My ""T""" (a) VALUES (1)', "INSERT", 'My "T"'),
        ("UPDATE ONLY s.t SET a = 1", "UPDATE", "s.t"),
        ("DELETE FROM t USING u", "DELETE", "t"),
        ("MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE", "MERGE", "t"),
        ("WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a", "INSERT", "t"),
        ("WITH RECURSIVE a (n) AS NOT MATERIALIZED (SELECT 1), b AS (DELETE FROM u) SELECT * FROM t", "SELECT", "t"),
        ("WITH a AS (SELECT * FROM t) SELECT * FROM a", "SELECT", None),
        ("WITH update AS (SELECT 1) SELECT * FROM t", "SELECT", "t"),
        ("WITH a AS (SELECT 1)", "WITH", None),
        ("EXPLAIN ANALYZE SELECT 1", "EXPLAIN", None),
        ("CREATE TABLE IF NOT EXISTS s.t (a int)", "CREATE", "s.t"),
        ("CREATE INDEX ON t (a)", "CREATE", None),
        ("DROP TABLE t", "DROP", "t"),
        ("TRUNCATE TABLE t, u", "TRUNCATE", "t"),
        ("COPY t (a) FROM STDIN", "COPY", "t"),
        ("COPY (SELECT * FROM t) TO STDOUT", "COPY", None),
        ("TABLE t", "TABLE", "t"),
        ("VALUES (1)", "VALUES", None),
        ("BEGIN; SET LOCAL a = 1; COMMIT", "SET", None),
        ("SELECT FROM", "SELECT", None),
        ("hunter2", "OTHER", None),
        ("'hunter2'", "OTHER", None),
    ],
)
def test_kind_and_table(statement: str, query_type: str, table: str | None) -> None:
    known = normalise(statement)
    assert (known.query_type, known.table, known.is_control) == (query_type, table, False)


@pytest.mark.parametrize(
    "statement",
    [
        *(
            "BEGIN",
            "begin isolation level serializable;",
            "START TRANSACTION",
            "COMMIT",
            "END",
            "ROLLBACK TO a",
            "ABORT",
        ),
        *("SAVEPOINT a", "RELEASE a", "COMMIT PREPARED 'a'", "PREPARE TRANSACTION 'a'", "SET TRANSACTION READ ONLY"),
        *("SHOW transaction_isolation;", "show transaction isolation level", "", ";", " -- nothing", "COMMIT; BEGIN"),
        *("select pg_catalog.version()", "select current_schema()", "show standard_conforming_strings"),
    ],
)
def test_transaction_control_is_known(statement: str) -> None:
    assert normalise(statement).is_control


@pytest.mark.parametrize("statement", ["START_REPLICATION", "PREPARE a AS SELECT 1", "SHOW search_path", "SET a = 1"])
def test_what_only_begins_like_it_is_not(statement: str) -> None:
    assert not normalise(statement).is_control


@pytest.mark.parametrize(
    "same",
    [
        ("SELECT * FROM t WHERE a = 1", "select *\nfrom T where a='x' -- c", "SELECT * FROM t WHERE a = $1;"),
        (
            "SELECT 1 FROM t WHERE a IN (1)",
            "SELECT 1 FROM t WHERE a IN (1, -2, 'x')",
            "SELECT 1 FROM t WHERE a IN ($1,$2)",
        ),
        ("SELECT 1 WHERE a IN ($1::INTEGER) AND b = $2", "SELECT 1 WHERE a IN ($1::INTEGER, $2::INTEGER) AND b = $3"),
        ("SELECT 1 WHERE (a, b) IN ((1, 2))", "SELECT 1 WHERE (a, b) IN ((1, 2), (3, 4), (5, 6))"),
        ("SELECT ARRAY[1]", "SELECT ARRAY[1, 2, 3]"),
        ("INSERT INTO t VALUES (1, now())", "INSERT INTO t VALUES (1, now()), (2, now()), (3, now())"),
    ],
)
def test_the_same_statement_has_the_same_fingerprint(same: tuple[str, ...]) -> None:
    assert len({normalise(statement).fingerprint for statement in same}) == 1


def test_the_length_of_a_list_changes_nothing_however_long_it_is() -> None:
    def insert(rows: int) -> str:
        return "INSERT INTO t (a, b) VALUES " + ", ".join(["(1, 'a')"] * rows) + " RETURNING id"

    assert len({normalise(insert(rows)).fingerprint for rows in (1, 2, 3, 10, 300, 400)}) == 1


@pytest.mark.parametrize(
    "others",
    [
        ("SELECT a FROM t", "SELECT b FROM t", 'SELECT "A" FROM t', "SELECT a FROM t WHERE a = 1"),
        ("INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1, 2)"),
        ("SELECT f(1)", "SELECT f(1, 2)", "SELECT 1, 2"),
        ("SELECT a, a", "SELECT a"),
    ],
)
def test_another_statement_has_another_fingerprint(others: tuple[str, ...]) -> None:
    assert len({normalise(statement).fingerprint for statement in others}) == len(others)


def test_a_fingerprint_is_the_same_in_every_process_and_release() -> None:
    assert normalise("SELECT * FROM t WHERE id = $1").fingerprint == "2074cf2f5ec6514f"


def test_the_text_is_cut() -> None:
    known = normalise("SELECT " + ", ".join(f"column_{n}" for n in range(1000)) + " FROM t")
    assert len(known.text) == MAX_TEXT
    assert known.table == "t"


def test_the_memory_is_bounded() -> None:
    for number in range(sql.MEMO_SIZE + 10):
        normalise(f"SELECT {number}")
        normalise(f"SELECT '{'x' * sql.LONG}{number}'")
    assert len(sql._memo) <= sql.MEMO_SIZE
    assert len(sql._long_memo) <= sql.MEMO_SIZE
    assert max(map(len, sql._memo)) <= sql.LONG
    assert normalise("SELECT 7") is normalise("SELECT 7")
    long = f"SELECT '{'x' * sql.LONG}'"
    assert normalise(long) is normalise(long)


@pytest.mark.parametrize(
    "part",
    [
        "('",
        "/*",
        "$a$ ",
        "e'\\'",
        "((((",
        ",(",
        "1,",
        '"',
        "\\",
        "a.",
        "$a",
        "U&'",
        "E'a'\n",
        "- ",
        "E'\n--",
        "begin;",
        "1",
    ],
)
def test_an_enormous_text_is_read_in_a_moment(part: str) -> None:
    normalise(part * 200_000)  # hangs the test where reading is not linear


SECRET = "hunter2"
literals = st.sampled_from(
    [
        "'{}'",
        "E'\\'{}'",
        "e'{}\\\\'",
        "U&'{}'",
        "'''{}'",
        "$${}$$",
        "$t${}$t$",
        "-- {}\n",
        "/* {} */",
        "/* /* {} */ ' */",
        "x'{}'",
    ]
)
pieces = st.one_of(
    literals.map(lambda literal: literal.format(SECRET)),
    st.sampled_from(
        ["SELECT", "FROM", "t", "(", ")", ",", "=", "1", "$1", '"q"', "IN", "::int", "-", "/", "E", "U&", ";", "\n"]
    ),
)


@given(st.lists(pieces))
def test_no_literal_comes_through(parts: list[str]) -> None:
    statement = " ".join(parts)
    known = normalise(statement)
    assert SECRET not in known.text
    assert SECRET.upper() not in known.query_type
    assert SECRET not in (known.table or "")


@given(st.lists(pieces), st.sampled_from(["'", "E'", "$$", "$t$", "/*", "U&'", "--", '"', "b'"]))
def test_no_tail_of_an_open_quote_comes_through(parts: list[str], quote: str) -> None:
    assert SECRET not in normalise(" ".join([*parts, quote + " " + SECRET])).text


@given(st.text() | st.text(alphabet="'\"$\\/*-\nEeUu&ab1 .(),;[]"))
def test_any_text_will_do(statement: str) -> None:
    known = normalise(statement)
    assert len(known.text) <= MAX_TEXT
    assert len(known.fingerprint) == 16
    assert set(known.fingerprint) <= set(string.hexdigits)
    assert known.query_type.isupper()
    known.text.encode()
    (known.table or "").encode()
    assert normalise(statement) is known


@given(st.text(alphabet="'\"$\\/*-\nEeUu&ab1 .(),;[]"))
def test_what_was_cut_once_can_be_cut_again(statement: str) -> None:
    text = normalise(statement).text
    assert len(normalise(text).text) <= len(text)
