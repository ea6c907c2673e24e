"""The command analytics-migrate, as scripts and people use it: streams, exit codes, what is shown."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_analytics import __version__
from asgi_analytics.admin.refresh import Refreshed, refresh_views
from asgi_analytics.cli.migrate import main, make_parser, program
from tests.cli.ran import Command, one_line
from tests.kit.databases import Database, query


def test_a_schema_from_nothing_to_done(empty_database: Database, command: Command) -> None:
    on = ("--database-url", empty_database.dsn)
    ran = command("status", *on)
    assert ran.code == 1
    assert ran.out.splitlines()[0] == f"{empty_database.version}, schema public"
    assert ran.out.splitlines()[1] == "  001_pre_a.sql   Make a table  pending"
    assert ran.out.splitlines()[-1].startswith("Steps pending: 2. Next: analytics-migrate all")

    ran = command("pre", *on)
    assert ran.code == 0
    assert ran.out.splitlines()[0] == f"{empty_database.version}, schema public"
    assert ran.out.splitlines()[1].startswith("  001_pre_a.sql  Make a table  ")
    assert ran.out.splitlines()[1].endswith(" ms")
    assert "then analytics-migrate post" in ran.out.splitlines()[-1]
    assert command("status", *on).code == 1

    ran = command("post", *on)
    assert (ran.code, ran.err) == (0, "")
    assert "Nothing is pending. Next: start the application" in ran.out
    ran = command("status", *on)
    assert ran.code == 0
    assert ran.out.splitlines()[-1] == "Nothing is pending."
    assert "applied 20" in ran.out
    assert command("all", *on).out.splitlines()[1].startswith("Nothing was pending.")


def test_a_dry_run_has_the_sql_alone_on_stdout(empty_database: Database, command: Command) -> None:
    ran = command("dry-run", "--database-url", empty_database.dsn)
    assert ran.code == 0
    assert "CREATE TABLE a (x int);" in ran.out
    assert "-- 002_post_b.sql: Make a view" in ran.out
    assert empty_database.version in ran.err
    assert command("status", "--database-url", empty_database.dsn).code == 1
    assert query(empty_database.dsn, "SELECT to_regclass('analytics_migrations')") is None


def test_json_is_one_document_for_every_command(empty_database: Database, command: Command) -> None:
    on = ("--json", "--database-url", empty_database.dsn)
    status = command(*on, "status").json
    assert [step["name"] for step in status["pending"]] == ["001_pre_a.sql", "002_post_b.sql"]
    assert "BEGIN;" in command(*on, "dry-run").json["sql"]
    done = command("all", *on).json
    assert (done["command"], done["ok"], done["flavour"]) == ("all", True, empty_database.flavour)
    assert done["database"] == empty_database.version
    assert done["applied"][0] == {
        "version": 1,
        "name": "001_pre_a.sql",
        "phase": "pre",
        "description": "Make a table",
        "applied_at": None,
        "duration_ms": done["applied"][0]["duration_ms"],
    }


async def test_refresh_names_each_range_that_it_brought_up_to_date(database: Database) -> None:
    connection = await database.connect()
    await connection.execute(
        "INSERT INTO analytics_events (id, timestamp, event_type, service, data) "
        "SELECT gen_random_uuid(), now() - interval '2 days', 'task_created', 'shop', '{}'"
    )
    first = await refresh_views(database.dsn)
    assert {"analytics_task_stats_daily", "analytics_user_days"} <= {one.view for one in first.refreshed}
    assert (await refresh_views(database.dsn)).refreshed == ()


@pytest.mark.parametrize(
    "order",
    ["{url} --schema s1 --json --wait 9 {c}", "{c} {url} --schema s1 --json --wait 9", "{url} --json {c} --schema s1"],
)
def test_options_stand_before_or_after_the_command(empty_database: Database, command: Command, order: str) -> None:
    url = f"--database-url {empty_database.dsn}"
    assert command(*order.format(url=url, c="all").split()).json["schema"] == "s1"
    ran = command(*order.format(url=url, c="status").split())
    assert (ran.code, ran.json["pending"]) == (0, [])
    assert command("--require-timescaledb", *url.split(), "status").code == (
        1 if empty_database.flavour == "timescaledb" else 2
    )


def test_the_url_comes_from_the_option_then_the_variables(
    empty_database: Database, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "give --database-url, or set DATABASE_URL or PLATFORM_DATABASE_URL" in one_line(command("all"))
    monkeypatch.setenv("PLATFORM_DATABASE_URL", empty_database.dsn)
    assert command("status").code == 1
    monkeypatch.setenv("DATABASE_URL", "")
    assert command("status").code == 1
    monkeypatch.setenv("DATABASE_URL", "mysql://somewhere")
    assert "DATABASE_URL: the database URL does not begin with postgresql://" in one_line(command("status"))
    assert command("status", "--database-url", empty_database.dsn).code == 1


def test_urls_of_other_drivers_are_accepted(empty_database: Database, command: Command) -> None:
    rest = empty_database.dsn.removeprefix("postgresql")
    for scheme in ("postgres", "postgresql+asyncpg", "postgresql+psycopg"):
        assert command("status", "--database-url", scheme + rest).code == 1


@pytest.mark.parametrize("empty_database", ["postgresql"], indirect=True)
def test_plain_postgresql_is_warned_about_once_and_refused_on_demand(
    empty_database: Database, command: Command
) -> None:
    on = ("--database-url", empty_database.dsn)
    assert "TimescaleDB is not installed on this server: install it" in one_line(
        command("all", "--require-timescaledb", *on)
    )
    ran = command("all", *on)
    assert ran.code == 0
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("analytics-migrate: warning: TimescaleDB is not installed on this server: install it")
    assert command("all", *on).err == ""
    assert "is installed for plain PostgreSQL" in command("status", *on).out


def test_a_refresh_takes_times_and_shows_what_it_did(
    empty_database: Database, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    async def refresh(connection: Any, since: Any, until: Any) -> list[Refreshed]:
        asked.append((since, until, await connection.fetchval("SELECT current_schema()")))
        return [Refreshed("analytics_errors_hourly", since, until, 12.3)]

    monkeypatch.setattr("asgi_analytics.admin.refresh.refresh", refresh)
    on = ("--database-url", empty_database.dsn, "--schema", "s")
    assert "run analytics-migrate all first" in one_line(command("refresh", *on))
    assert command("all", *on).code == 0
    ran = command("refresh", *on, "--from", "2026-11-01", "--to", "2026-11-02T01:00:00+01:00")
    assert ran.code == 0
    assert [time.isoformat() for time in asked[0][:2]] == ["2026-11-01T00:00:00+00:00", "2026-11-02T01:00:00+01:00"]
    assert asked[0][2] == "s"
    assert "analytics_errors_hourly" in ran.out
    assert "12 ms" in ran.out
    [view] = command("refresh", *on, "--json").json["refreshed"]
    assert (view["view"], view["start"]) == ("analytics_errors_hourly", None)
    assert asked[1][:2] == (None, None)
    assert command("--from", "2026-11-01", "--to", "2026-11-02", "refresh", *on).code == 0
    assert "is not before" in one_line(command("--to", "2026-11-01", "refresh", *on, "--from", "2026-11-02"))
    assert "expected a time in ISO 8601" in one_line(command("refresh", *on, "--from", "yesterday"))
    assert "is not before" in one_line(command("refresh", *on, "--from", "2026-11-02", "--to", "2026-11-01"))


def test_help_names_commands_and_variables(capsys: pytest.CaptureFixture[str]) -> None:
    text = make_parser().format_help()
    for word in ("DATABASE_URL", "PLATFORM_DATABASE_URL", "--wait", "--require-timescaledb", *program.commands()):
        assert word in text
    assert main(["refresh", "--help"]) == 0
    assert "UTC if it names no zone" in capsys.readouterr().out.replace("\n", " ").replace("  ", "")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"analytics-migrate {__version__}\n"
