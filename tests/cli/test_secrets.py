"""No command shows a password or a token, whatever it is given, and whatever stands in the environment."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from asgi_analytics.cli import ingest, migrate

SECRET = "hunter2"
URL = f"postgresql://joe:{SECRET}@db/shop"
Main = Callable[[Sequence[str] | None], int]
BOTH = pytest.mark.parametrize("main", [migrate.main, ingest.main], ids=["migrate", "ingest"])


@pytest.fixture(autouse=True)
def secrets_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "PLATFORM_DATABASE_URL"):
        monkeypatch.setenv(name, f"mysql://joe:{SECRET}@db/shop")
    for name in ("ANALYTICS_TOKENS", "ANALYTICS_TOKEN", "ANALYTICS_HASH_KEY", "PGPASSWORD"):
        monkeypatch.setenv(name, SECRET)


@BOTH
@pytest.mark.parametrize(
    "arguments",
    [
        ["--database-ulr", URL],
        ["all", f"--database-ulr={URL}"],
        [URL],
        [f"postgresql://joe:a b {SECRET}@db/x"],
        ["all", URL],
        ["--schema", "x", f"host=db password={SECRET}"],
        ["all", "--wait", URL],
        ["--port", URL],
        ["all", "--json", "--database-url", f"mysql://joe:{SECRET}@db/x"],
        ["--database-url", f"postgresql://joe:{SECRET}"],
        ["all", "--database-url"],
        ["all"],
        [],
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_without_the_secret(
    main: Main, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert SECRET not in out + err
    assert err.count("\n") == 1
    assert err.removesuffix("\n").isprintable()


@BOTH
def test_what_moves_a_cursor_is_written_out(main: Main, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["\x1b[2J\nERROR\u2028"]) == 2
    err = capsys.readouterr().err
    assert err.removesuffix("\n").isprintable()
    assert "ERROR" in err


@BOTH
@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_shows_the_variables_and_not_what_is_in_them(
    main: Main, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    assert SECRET not in capsys.readouterr().out
