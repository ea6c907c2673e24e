"""The command ``analytics-ingest``: its options, its variables, and how it refuses to start."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from asgi_analytics.cli import ingest, serving
from tests.kit.scripts import SOURCE
from tests.web.ingestion.service import Process

DSN = "postgresql://app:s3cret@127.0.0.1:1/shop"


@pytest.fixture(autouse=True)
def _environ(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "PLATFORM_DATABASE_URL", "PORT", "ANALYTICS_TOKENS"):
        monkeypatch.delenv(name, raising=False)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert ingest.main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("analytics-ingest: ")
    assert told.err.count("\n") == 1
    assert "s3cret" not in told.err
    return told.err


def test_help_shows_every_option_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    assert ingest.main(["--help"]) == 0
    told = capsys.readouterr().out
    for word in ("--host", "--port", "--insecure", "DATABASE_URL", "PLATFORM_DATABASE_URL", "PORT", "ANALYTICS_TOKENS",
                 "8094", "exit codes"):  # fmt: skip
        assert word in told


def test_without_a_database_it_says_how_to_name_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "PLATFORM_DATABASE_URL" in fails(capsys)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "ingestion.example", ""])
def test_without_tokens_it_refuses_to_listen_publicly(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", DSN)
    told = fails(capsys, "--host", host)
    assert "ANALYTICS_TOKENS" in told
    assert "--insecure" in told


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "LOCALHOST"])
def test_loopback_is_allowed_without(host: str) -> None:
    assert serving.is_loopback(host)


@pytest.mark.parametrize("tokens", [",", " , ", " "])
def test_tokens_that_are_none_are_a_mistake(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tokens: str
) -> None:
    monkeypatch.setenv("ANALYTICS_TOKENS", tokens)
    assert "ANALYTICS_TOKENS" in fails(capsys, "--database-url", DSN)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--port", "x"], "port"),
        (["--port", "65536"], "port"),
        (["--max-body", "5 apples"], "size"),
        (["--max-body", "0"], "size"),
        (["--max-events", "0"], "number"),
        (["--body-timeout", "0"], "seconds"),
        (["--body-timeout", "inf"], "seconds"),
        (["--unknown"], "--help"),
        (["serve"], "--help"),
        (["--database-url", "mysql://app:s3cret@host/x"], "--database-url"),
        (["--database-url", "postgresql://app:s3cret@[host/x"], "--database-url"),
        (["--database-url", DSN, "--host", "300.1.1.1", "--insecure"], "cannot listen"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], word: str
) -> None:
    assert word in fails(capsys, *arguments)


def test_a_wrong_variable_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_DATABASE_URL", "postgresql://app:s3cret@[host/x")
    assert "PLATFORM_DATABASE_URL" in fails(capsys)
    monkeypatch.setenv("PLATFORM_DATABASE_URL", DSN)
    monkeypatch.setenv("PORT", "http")
    assert "PORT" in fails(capsys)


def test_a_port_that_is_taken_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert str(port) in fails(capsys, "--database-url", DSN, "--port", str(port))


@pytest.mark.parametrize("module", ["starlette", "uvicorn"])
def test_without_the_extra_it_says_what_to_install(module: str) -> None:
    code = f"import sys; sys.modules[{module!r}] = None; from asgi_analytics.cli.ingest import main; sys.exit(main())"
    environ = {**os.environ, "DATABASE_URL": DSN}
    run: Any = {"capture_output": True, "text": True, "cwd": SOURCE, "env": environ}
    done = subprocess.run([sys.executable, "-c", code], check=False, **run)
    assert done.returncode == 2
    assert done.stderr == f"analytics-ingest: {module} is not installed: pip install 'asgi-analytics[server]'\n"
    helped = subprocess.run([sys.executable, "-c", code, "--help"], check=False, **run)
    assert (helped.returncode, helped.stderr) == (0, "")


async def test_it_starts_without_its_database_and_says_that_it_is_not_ready() -> None:
    with Process(DSN) as process:
        async with process.client() as http:
            assert (await http.get("/health")).status_code == 200
            assert (await http.get("/ready")).status_code == 503
        assert "s3cret" not in process.log


async def test_what_is_wrong_with_the_database_is_told_before_anybody_asks() -> None:
    with Process(DSN) as process:
        for _ in range(500):
            if "not ready: " in process.log:
                break
            await asyncio.sleep(0.02)
        assert "WARNING not ready: no server answers at " in process.log
        assert "s3cret" not in process.log
        assert await process.end() == 0


async def test_options_and_tokens_reach_the_service() -> None:
    arguments = ("--host", "0.0.0.0", "--max-events", "2", "--max-body", "1KiB", "--quiet", "--strict-types")
    with Process(DSN, *arguments[:-2], ANALYTICS_TOKENS=" a , b ") as process:
        async with process.client() as http:
            assert (await http.post("/events/batch", json=[])).status_code == 401
            for token in ("a", "b"):
                http.headers["authorization"] = f"Bearer {token}"
                assert (await http.post("/events/batch", json=[])).status_code == 200
            assert (await http.post("/events/batch", json=[1, 2, 3])).status_code == 413
            assert (await http.post("/events/batch", json=["x" * 1024])).status_code == 413
        assert "tokens: 2" in process.log
        assert re.search(r"Bearer|token[ =]a|\bb\b", process.log) is None
        assert await process.end() == 0


async def test_insecure_listens_anywhere_without_tokens() -> None:
    with Process(DSN, "--host", "0.0.0.0", "--insecure") as process:
        async with process.client() as http:
            assert (await http.post("/events/batch", json=[])).status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_starts_ends_it_at_once_in_peace(tmp_path: Path, number: signal.Signals) -> None:
    """The import of what it needs takes half a second, and here for ever."""
    (tmp_path / "uvicorn.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "asgi_analytics.cli.ingest", "--port", "0"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(SOURCE)]), "DATABASE_URL": DSN},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"importing\n"
        process.send_signal(number)
        assert process.communicate(timeout=20) == (b"", b"")
        assert process.returncode == 0


def test_a_start_that_fails_leaves_the_signals_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    fails(capsys)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize("seconds", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_sigterm_at_any_moment_of_the_start_ends_it_without_a_traceback(seconds: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "asgi_analytics.cli.ingest", "--port", "0", "--quiet"],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "DATABASE_URL": DSN},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        time.sleep(seconds)
        process.terminate()
        _, told = process.communicate(timeout=20)
    assert process.returncode in (0, -signal.SIGTERM)
    assert b"Traceback" not in told
