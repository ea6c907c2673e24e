"""Each framework's example runs, and captures what it says."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.instrumentation.asgi_app import http_scope, run
from tests.kit.scripts import PATIENCE, SOURCE

EXAMPLES = Path(__file__).parents[2] / "examples"

ASKED: dict[str, list[tuple[str, str | None, int | None]]] = {
    "starlette_app": [("/shops/berlin/lamps/7", "/shops/{shop}/lamps/{lamp}", 200), ("/health", None, None)],
    "fastapi_app": [("/v1/orders/7", "/v1/orders/{order}", 200), ("/v1/orders/13", "/v1/orders/{order}", 404)],
    "litestar_app": [("/rooms/7", "/rooms/{room}", 200), ("/broken", "/broken", 500), ("/nowhere", None, 404)],
    "quart_app": [("/mail/ann", "/mail/<name>", 200)],
    "django_app": [("/years/2026/", "/years/<int:year>/", 200), ("/broken/", "/broken/", 500)],
    "bare_asgi_app": [("/echo/hello", "/echo/{words}", 200), ("/nowhere", None, 404)],
}
ERRORS = {"fastapi_app": True, "litestar_app": False, "quart_app": False, "django_app": False}


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Django and FastAPI look themselves up
    spec.loader.exec_module(module)
    return module


PROGRAM = """
import asyncio, json, sys
from tests.frameworks.test_examples import ask
print(json.dumps(asyncio.run(ask(sys.argv[1]))))
"""


async def ask(name: str) -> dict[str, Any]:
    """Load an example, make its requests, and return what it captured."""
    module = load(name)
    app = getattr(module, "app", None) or module.application
    for path, *_ in ASKED[name]:
        headers = [(b"host", b"localhost"), (b"x-customer", b"ann"), (b"x-session", b"s-1")]
        with contextlib.suppress(RuntimeError):
            await run(app, http_scope(path, headers=headers))
    await asyncio.sleep(0.05)
    assert module.client.flush(5)
    events = module.client.sink.events
    return {
        "requests": [(e.data["endpoint"], e.data["status_code"]) for e in events if e.event_type == "api_request"],
        "errors": [e.data["handled"] for e in events if e.event_type == "application_error"],
        "others": [e.event_type for e in events if e.event_type not in ("api_request", "application_error")],
        "users": sorted({str(e.user_id) for e in events}),
    }


@pytest.mark.parametrize("name", ASKED)
def test_an_example_captures_what_it_says(name: str) -> None:
    # In an interpreter of its own: Django's settings are one a process.
    root = Path(__file__).parents[2]
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, name]
    environment = {"PYTHONPATH": f"{SOURCE}:{root}", "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    captured = json.loads(done.stdout.splitlines()[-1])

    expected = [[endpoint, status] for _, endpoint, status in ASKED[name] if status is not None]
    assert captured["requests"] == expected
    assert captured["errors"] == ([ERRORS[name]] if name in ERRORS else [])
    assert captured["others"] == (["lamp_seen"] if name == "starlette_app" else [])


@pytest.mark.parametrize("name", ASKED)
def test_an_example_has_its_header(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()

    assert re.match(
        r'"""[^\n]+\n\nshows:   .+\nneeds:   .+\ninstall: pip install asgi-analytics.*\nrun:     .+\nsee:     ', text
    )
