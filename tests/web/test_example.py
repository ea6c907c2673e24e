"""The example does what it says, and compose.yaml starts what there is."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from asgi_analytics.cli import ingest, migrate
from asgi_analytics.web import server
from tests.databases import Database
from tests.web.service import ROOT


async def test_the_example_stores_what_it_sends(database: Database) -> None:
    environ = {
        **os.environ, "DATABASE_URL": database.dsn, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'examples'}",
        "ANALYTICS_TOKEN": "t0ken",
    }  # fmt: skip
    with server.listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        serving = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--factory", "ingestion_service:make_app", "--fd", str(listener.fileno()),
             "--log-level", "warning"],
            env=environ, pass_fds=[listener.fileno()],
        )  # fmt: skip
        try:
            environ["ANALYTICS_URL"] = f"http://127.0.0.1:{port}/analytics"
            sent = await asyncio.to_thread(
                subprocess.run, [sys.executable, str(ROOT / "examples" / "ingestion_service.py")], env=environ,
                capture_output=True, text=True, check=True,
            )  # fmt: skip
        finally:
            serving.terminate()
            serving.wait()
    assert sent.stdout == "stored 100, duplicates 0, rejected {}\n"
    connection = await database.connect()
    assert await connection.fetchval("SELECT count(*) FROM analytics_events WHERE event_type = 'parcel_packed'") == 100


def test_compose_starts_commands_that_there_are() -> None:
    yaml: Any = pytest.importorskip("yaml")
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert set(services) == {"db", "migrate", "ingestion"}
    for name, module in (("migrate", migrate), ("ingestion", ingest)):
        _, *arguments = services[name]["command"]
        module.make_parser().parse_args(arguments)
    assert services["ingestion"]["environment"]["DATABASE_URL"] == services["migrate"]["environment"]["DATABASE_URL"]
    assert services["db"]["environment"]["POSTGRES_PASSWORD"] == "password"


@pytest.mark.parametrize("page", ["run", "secure"])
def test_options_named_in_the_pages_exist(page: str) -> None:
    text = Path(ROOT / "docs" / "how-to" / f"{page}-the-ingestion-service.md").read_text(encoding="utf-8")
    known = ingest.make_parser().format_help()
    options = set(re.findall(r"--[a-z][a-z-]+", text))
    assert options
    assert [option for option in options if option not in known] == []
