"""gunicorn --preload: the client is made, and used, before the workers are forked."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import until
from tests.scripts import PROLOGUE, SOURCE, arrived

pytestmark = pytest.mark.skipif(importlib.util.find_spec("gunicorn") is None, reason="gunicorn is not installed")

APP = """
client = AnalyticsClient.from_url(f"file://{os.environ['EVENTS']}", service="shop", flush_interval=3600)
client.track(said("preload"))
if os.environ.get("FLUSHED"):
    client.flush(10)  # the master's thread runs when it forks

def app(environ, start_response):
    client.track(said("request"))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(params=["", "flushed"])
def server(request: pytest.FixtureRequest, tmp_path: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    (tmp_path / "shop.py").write_text(PROLOGUE + APP)
    environ = {**os.environ, "PYTHONPATH": str(SOURCE), "EVENTS": str(tmp_path / "events"), "FLUSHED": request.param}
    command = [sys.executable, "-m", "gunicorn", "--preload", "-w", "2", "-b", f"127.0.0.1:{port}", "shop:app"]
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=subprocess.DEVNULL) as process:
        yield process
        process.kill()


def get(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_the_events_of_master_and_workers_arrive_once_each(
    server: subprocess.Popen[bytes], tmp_path: Path, port: int
) -> None:
    until(lambda: get(port), 30)
    assert all(get(port) for _ in range(9))
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0
    assert arrived(tmp_path / "events") == ["preload"] + ["request"] * 10
