"""uvicorn: what was tracked is written when the server is told to end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import until
from tests.scripts import PROLOGUE, SOURCE, events_of

EXAMPLES = Path(__file__).parent.parent / "examples"

APP = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from asgi_analytics import AnalyticsMiddleware

client = AnalyticsClient.from_url(f"file://{os.environ['EVENTS']}", service="shop", flush_interval=3600)

async def buy(request):
    client.track(said("bought"))
    return PlainTextResponse("ok")

app = Starlette(routes=[Route("/buy", buy)])
app.add_middleware(AnalyticsMiddleware, client=client)
"""


DJANGO = """
sys.path.insert(0, os.environ["EXAMPLES"])
from django_app import application as app
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def serve(tmp_path: Path, port: int) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Give ``serve(*options)``: uvicorn with a small shop."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*options: str, app: str = APP, path: str = "/buy") -> subprocess.Popen[bytes]:
        (tmp_path / "shop.py").write_text(PROLOGUE + app)
        environ = {**os.environ, "PYTHONPATH": str(SOURCE), "EVENTS": str(tmp_path / "events")}
        environ |= {"EXAMPLES": str(EXAMPLES), "ANALYTICS_URL": f"file://{tmp_path / 'events'}"}
        command = [sys.executable, "-m", "uvicorn", "--port", str(port), "--log-level", "warning", *options, "shop:app"]
        started.append(subprocess.Popen(command, cwd=tmp_path, env=environ))
        until(lambda: get(port, path), 30)
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def get(port: int, path: str = "/buy") -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.parametrize(
    ("options", "signum"),
    [
        pytest.param((), signal.SIGTERM, id="lifespan, SIGTERM"),
        pytest.param((), signal.SIGINT, id="lifespan, SIGINT"),
        # No SIGTERM here: without a lifespan uvicorn kills its own process by it, and nobody is told.
        pytest.param(("--lifespan", "off"), signal.SIGINT, id="no lifespan, SIGINT"),
        pytest.param(("--workers", "2"), signal.SIGTERM, id="workers, SIGTERM"),
    ],
)
def test_a_server_that_is_told_to_end_writes_what_it_has(
    serve: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, port: int, options: Any, signum: int
) -> None:
    server = serve(*options)
    assert all(get(port) for _ in range(9))
    server.send_signal(signum)
    server.wait(30)
    kinds = Counter(event["event_type"] for event in events_of(tmp_path / "events"))
    assert kinds == {"said": 10, "api_request": 10}


def test_django_with_a_lifespan_writes_what_it_has(
    serve: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, port: int
) -> None:
    server = serve(app=DJANGO, path="/years/2026/")
    assert all(get(port, "/years/2026/") for _ in range(9))
    server.send_signal(signal.SIGTERM)
    server.wait(30)
    endpoints = Counter(event["data"]["endpoint"] for event in events_of(tmp_path / "events"))
    assert endpoints == {"/years/<int:year>/": 10}
