"""uvicorn: what was tracked is written when the server is told to end."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.kit.scripts import PROLOGUE, environment, events_of
from tests.kit.serving import UVICORN, Serving

EXAMPLES = Path(__file__).parents[2] / "examples"

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


def serve(folder: Path, app: str, *options: str) -> Serving:
    events = folder / "events"
    environ = environment(EVENTS=events, EXAMPLES=EXAMPLES, ANALYTICS_URL=f"file://{events}")
    return Serving(folder, PROLOGUE + app, *UVICORN, *options, environ=environ)


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
def test_a_server_that_is_told_to_end_writes_what_it_has(tmp_path: Path, options: Any, signum: int) -> None:
    with serve(tmp_path, APP, *options) as server:
        server.until_served("/buy")
        assert all(server.get("/buy") for _ in range(9))
        server.terminate(signum)
    kinds = Counter(event["event_type"] for event in events_of(tmp_path / "events"))
    assert kinds == {"said": 10, "api_request": 10}


def test_django_with_a_lifespan_writes_what_it_has(tmp_path: Path) -> None:
    with serve(tmp_path, DJANGO) as server:
        server.until_served("/years/2026/")
        assert all(server.get("/years/2026/") for _ in range(9))
        server.terminate()
    endpoints = Counter(event["data"]["endpoint"] for event in events_of(tmp_path / "events"))
    assert endpoints == {"/years/<int:year>/": 10}
