"""``analytics-migrate roles``, as scripts and people use it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from asgi_analytics.cli.migrate import main
from tests.cli.ran import Command, Ran
from tests.kit.databases import PASSWORD, Database, query


@pytest.fixture
def roles(
    database: Database, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Ran]]:
    """Give ``roles(…)``: the command on this test's database, with two names of its own, and what it printed."""
    names = f"writer_of_{database.name}", f"reader_of_{database.name}"

    def run(*arguments: str, url: str = database.dsn) -> Ran:
        monkeypatch.setenv("DATABASE_URL", url)
        capfd.readouterr()
        code = main(["roles", "--writer", names[0], "--reader", names[1], *arguments])
        return Ran(code, *capfd.readouterr())

    yield run
    for name in names:
        if query(database.dsn, f"SELECT count(*) FROM pg_roles WHERE rolname = '{name}'"):
            query(database.dsn, f"DROP OWNED BY {name}")
            query(database.dsn, f"DROP ROLE {name}")


def test_it_says_what_it_made_and_what_to_do_next(database: Database, roles: Command) -> None:
    ran = roles()
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[0] == f"{database.version}, schema public"
    assert [" ".join(line.split()) for line in ran.out.splitlines()[1:3]] == [
        f"writer_of_{database.name} inserts, and nothing else created",
        f"reader_of_{database.name} reads, and nothing else created",
    ]
    assert ran.out.splitlines()[-1] == (
        f'Next: GRANT "writer_of_{database.name}" TO the login roles of the application'
    )
    assert roles().out.count("existed") == 2


def test_json_is_one_document(database: Database, roles: Command) -> None:
    document = json.loads(roles("--json").out)
    assert (document["command"], document["ok"], document["flavour"]) == ("roles", True, database.flavour)
    assert [role["purpose"] for role in document["roles"]] == ["writer", "reader"]
    assert "sql" not in document
    assert "GRANT INSERT" in json.loads(roles("--json", "--dry-run").out)["sql"]


def test_a_dry_run_has_the_sql_alone_on_stdout(database: Database, roles: Command) -> None:
    ran = roles("--dry-run")
    assert ran.code == 0
    assert ran.out.startswith('BEGIN;\nSET LOCAL search_path TO "public"')
    assert f'CREATE ROLE "writer_of_{database.name}" NOLOGIN;' in ran.out
    assert ran.out.endswith("COMMIT;\n")
    assert "nothing was changed" in ran.err
    assert query(database.dsn, f"SELECT count(*) FROM pg_roles WHERE rolname = 'writer_of_{database.name}'") == 0


def test_the_names_are_ours_unless_others_are_given(database: Database, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["roles", "--dry-run", "--database-url", database.dsn]) == 0
    out = capfd.readouterr().out
    assert 'GRANT INSERT ON analytics_events, analytics_metrics, analytics_dead_letters TO "analytics_writer";' in out
    assert 'TO "analytics_reader";' in out


def test_what_is_wrong_is_one_line_and_exit_2(database: Database, roles: Command) -> None:
    guest = f"guest_of_{database.name}"
    query(database.dsn, f"CREATE ROLE {guest} LOGIN PASSWORD 'hunter2'")
    url = database.cluster.dsn(database.name, guest, "hunter2")
    try:
        for arguments, says in [
            ((), "permission denied for table analytics_migrations"),
            (("--schema", "elsewhere"), "has no aggregates yet: run analytics-migrate all first"),
            (("--writer", "pg_x"), "PostgreSQL keeps the name"),
            (("--writer", "a\x1b[31m\nb"), "the name of a role"),
            (("--schema", "a\x1b[31m\nb"), "has no aggregates yet: run analytics-migrate all first"),
        ]:
            ran = roles(*arguments, url=url)
            assert (ran.code, ran.out) == (2, ""), arguments
            assert says in ran.err
            assert ran.err.count("\n") == 1
            assert ran.err.removesuffix("\n").isprintable(), ran.err
            assert "hunter2" not in ran.err
        query(database.dsn, f"GRANT SELECT ON analytics_migrations TO {guest}")
        ran = roles("--json", url=url)
        assert ran.code == 2
        assert "run this as their owner or as a superuser" in json.loads(ran.out)["error"]
        assert ran.err == f"analytics-migrate: {json.loads(ran.out)['error']}\n"
    finally:
        query(database.dsn, f"DROP OWNED BY {guest}")
        query(database.dsn, f"DROP ROLE {guest}")
    assert PASSWORD not in roles("--writer", "postgres").err
