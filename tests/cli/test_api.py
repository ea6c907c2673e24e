"""The command ``analytics-api``: its options, its variables, how it refuses to start, and how it ends."""

from __future__ import annotations

import asyncio
import re
import resource

import pytest

from asgi_analytics.cli import api
from tests.kit.databases import Database
from tests.kit.proxy import Proxy
from tests.web.api.service import Process, fill, locked

DSN = "postgresql://app:s3cret@127.0.0.1:1/shop"


@pytest.fixture(autouse=True)
def _environ(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "PLATFORM_DATABASE_URL", "PORT", "ANALYTICS_READ_TOKENS"):
        monkeypatch.delenv(name, raising=False)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert api.main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("analytics-api: ")
    assert told.err.count("\n") == 1
    assert "s3cret" not in told.err
    return told.err


def test_help_shows_every_option_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    assert api.main(["--help"]) == 0
    told = capsys.readouterr().out
    for word in ("--host", "--port", "--insecure", "--schema", "--timezone", "--statement-timeout", "DATABASE_URL",
                 "PLATFORM_DATABASE_URL", "PORT", "ANALYTICS_READ_TOKENS", "8093", "exit codes"):  # fmt: skip
        assert word in told


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "PLATFORM_DATABASE_URL"),
        (["--database-url", DSN, "--host", "0.0.0.0"], "ANALYTICS_READ_TOKENS"),
        (["--database-url", "mysql://app:s3cret@host/x"], "--database-url"),
        (["--database-url", DSN, "--timezone", "Mars"], "IANA"),
        (["--database-url", DSN, "--statement-timeout", "0"], "seconds"),
        (["--database-url", DSN, "--statement-timeout", "100000"], "statement_timeout"),
        (["--database-url", DSN, "--schema", ""], "schema"),
        (["--port", "x"], "port"),
        (["--unknown"], "--help"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], word: str
) -> None:
    assert word in fails(capsys, *arguments)


async def test_it_starts_without_its_database_and_tells_neither_password_nor_parameters() -> None:
    with Process(DSN, ANALYTICS_READ_TOKENS="a,b") as process:
        async with process.client(Authorization="Bearer b") as http:
            assert (await http.get("/health")).status_code == 200
            assert (await http.get("/ready")).status_code == 503
            assert (await http.get("/events?user_id=customer-42")).status_code == 503
            assert (await http.get("/errors/f1ngerprint")).status_code == 503
        assert await process.end() == 0
        assert "GET /events 503" in process.log
        assert "GET /errors/{fingerprint} 503" in process.log
        for secret in ("s3cret", "customer-42", "f1ngerprint", "Bearer"):
            assert secret not in process.log
        assert process.log.endswith("INFO ended\n")


async def test_what_was_asked_is_answered_before_the_end(database: Database) -> None:
    await fill(database, 30)
    with Process(database.dsn) as process:
        async with process.client() as http:
            async with locked(database):
                asked = asyncio.create_task(http.get("/queries/slow"))
                await asyncio.sleep(1)
                ending = asyncio.create_task(process.end())
                await asyncio.sleep(0.5)
                assert not asked.done()
            assert (await asked).status_code == 200
        assert await ending == 0


async def test_the_database_may_leave_and_come_back(database: Database, proxy: Proxy) -> None:
    await fill(database, 30)
    with Process(proxy.dsn) as process:
        async with process.client() as http:
            assert (await http.get("/pipeline?service=shop")).status_code == 200
            proxy.refuse()
            proxy.cut()
            gone = await http.get("/queries/slow")
            assert (gone.status_code, gone.json()["code"]) == (503, "no_connection")
            proxy.accept()
            for path in ("/queries/slow", "/ready"):  # an answer to /ready is given again for a second
                for _ in range(100):
                    if (await http.get(path)).status_code == 200:
                        break
                    await asyncio.sleep(0.1)
                assert (await http.get(path)).status_code == 200


async def test_a_database_without_the_tables_is_told(empty_database: Database) -> None:
    with Process(empty_database.dsn) as process:
        async with process.client() as http:
            assert (await http.get("/ready")).status_code == 503
            answer = await http.get("/overview")
            assert (answer.status_code, answer.json()["code"]) == (503, "not_migrated")
        assert "run analytics-migrate all" in process.log


async def test_a_question_that_takes_too_long_is_a_504(database: Database) -> None:
    with Process(database.dsn, "--statement-timeout", "0.3") as process:
        async with process.client() as http, locked(database):
            answer = await http.get("/queries/slow")
            assert (answer.status_code, answer.json()["code"]) == (504, "query_timeout")


async def test_a_thousand_idle_connections_do_not_keep_others_out(database: Database) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        pytest.skip("this process may not open a thousand files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    with Process(database.dsn) as process:
        opened = [await asyncio.open_connection("127.0.0.1", process.port) for _ in range(1000)]
        async with process.client() as http:
            assert (await http.get("/overview")).status_code == 200
        for _, writer in opened:
            writer.close()
        assert await process.end() == 0
        assert re.search("Traceback", process.log) is None
