"""gunicorn --preload: the client is made, and used, before the workers are forked."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.kit.scripts import PROLOGUE, arrived, environment
from tests.kit.serving import GUNICORN, Serving

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


@pytest.mark.parametrize("flushed", ["", "flushed"])
def test_the_events_of_master_and_workers_arrive_once_each(tmp_path: Path, flushed: str) -> None:
    environ = environment(EVENTS=tmp_path / "events", FLUSHED=flushed)
    with Serving(tmp_path, PROLOGUE + APP, *GUNICORN, "-w", "2", environ=environ) as server:
        server.until_served()
        assert all(server.get() for _ in range(9))
        server.terminate()
        assert server.process.returncode == 0
    assert arrived(tmp_path / "events") == ["preload"] + ["request"] * 10
