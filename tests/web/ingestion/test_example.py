"""The example does what it says, and compose.yaml starts what there is."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml  # type: ignore[import-untyped]  # comes with schemathesis

from asgi_analytics.cli import api, export, ingest, migrate
from asgi_analytics.database.url import read_dsn
from asgi_analytics.web import server
from tests.kit.databases import Database
from tests.kit.scripts import SOURCE
from tests.web.ingestion.service import ROOT, Process


async def test_the_example_stores_what_it_sends(database: Database) -> None:
    environ = {
        **os.environ, "DATABASE_URL": database.dsn, "PYTHONPATH": f"{SOURCE}:{ROOT / 'examples'}",
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


@pytest.fixture
def compose() -> Any:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


def project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


OURS = {"migrate": migrate, "ingestion": ingest, "api": api, "export-init": export, "export": export}


def test_compose_starts_commands_that_there_are(compose: Any) -> None:
    services = compose["services"]
    assert set(services) == {"db", "grafana", *OURS}
    for name, module in OURS.items():
        command, *arguments = services[name]["command"]
        assert project()["project"]["scripts"][command] == f"{module.__name__}:main"
        module.make_parser().parse_args(arguments)
        for variable in services[name]["environment"]:
            assert variable in module.EPILOG, "no variable that the command reads"


def test_compose_names_the_database_that_it_starts(compose: Any) -> None:
    services = compose["services"]
    database = services["db"]
    for name in OURS:
        url = urlsplit(read_dsn(services[name]["environment"]["DATABASE_URL"]).dsn)
        assert services[url.hostname] is database
        assert (url.username, url.password) == ("postgres", database["environment"]["POSTGRES_PASSWORD"])
        assert url.path == "/postgres"
        assert f"127.0.0.1:{url.port}:5432" in database["ports"]
    assert all(volume.partition(":")[0] in compose["volumes"] for volume in database["volumes"])


def test_compose_waits_for_what_can_come_about(compose: Any) -> None:
    services = compose["services"]
    waits = {
        name: {on: how["condition"] for on, how in one.get("depends_on", {}).items()} for name, one in services.items()
    }
    assert waits == {
        "db": {},
        "migrate": {"db": "service_healthy"},
        "ingestion": {"migrate": "service_completed_successfully"},
        "api": {"migrate": "service_completed_successfully"},
        "export-init": {"migrate": "service_completed_successfully"},
        "export": {"export-init": "service_completed_successfully"},
        "grafana": {"migrate": "service_completed_successfully"},
    }
    assert "healthcheck" in services["db"]
    assert "restart" not in services["migrate"], "it would never have completed"
    options = ingest.make_parser().parse_args(services["ingestion"]["command"][1:])
    grace = services["ingestion"]["stop_grace_period"]
    assert float(grace.removesuffix("s")) > options.graceful_timeout


async def test_compose_asks_the_service_where_it_listens_whether_it_is_ready(compose: Any, database: Database) -> None:
    service = compose["services"]["ingestion"]
    assert ingest.make_parser().parse_args(service["command"][1:]).port is None
    assert service["ports"] == [f"127.0.0.1:{ingest.PORT}:{ingest.PORT}"]
    word, python, *arguments = service["healthcheck"]["test"]
    assert (word, python) == ("CMD", "python")
    assert f"127.0.0.1:{ingest.PORT}/" in arguments[-1]
    for dsn, code in ((database.dsn, 0), ("postgresql://nobody@127.0.0.1:1/none", 1)):
        with Process(dsn) as process:
            probe = [part.replace(str(ingest.PORT), str(process.port)) for part in arguments]
            asked = await asyncio.to_thread(
                subprocess.run, [sys.executable, *probe], stderr=subprocess.DEVNULL, check=False
            )
            assert asked.returncode == code


def test_compose_builds_what_the_package_needs(compose: Any) -> None:
    """Docker is not needed for this: the instructions are read, and what they copy is what the wheel is made of."""
    services, about = compose["services"], project()
    assert services["migrate"]["build"] == services["ingestion"]["build"]
    instructions = services["ingestion"]["build"]["dockerfile_inline"].splitlines()
    assert {line.split()[0] for line in instructions} == {"FROM", "COPY", "RUN", "USER"}
    [image] = [line.split()[1] for line in instructions if line.startswith("FROM")]
    python = tuple(map(int, image.removeprefix("python:").removesuffix("-slim").split(".")))
    assert python >= tuple(map(int, about["project"]["requires-python"].removeprefix(">=").split(".")))
    copied = {name for line in instructions if line.startswith("COPY") for name in line.split()[1:-1]}
    wheel = about["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", about["project"]["readme"], *about["project"]["license-files"]}
    assert copied == needed | {path.partition("/")[0] for path in wheel["packages"]} | set(wheel["force-include"])
    assert all((ROOT / name).exists() for name in copied)
    [install] = [line for line in instructions if "pip install" in line]
    assert re.findall(r"'/src\[(.*?)\]'", install) == ["server,parquet"]
    assert {re.split("[<>=]", one)[0] for one in about["project"]["optional-dependencies"]["server"]} >= {"uvicorn"}


@pytest.mark.parametrize("page", ["run", "secure"])
def test_options_named_in_the_pages_exist(page: str) -> None:
    text = Path(ROOT / "docs" / "how-to" / f"{page}-the-ingestion-service.md").read_text(encoding="utf-8")
    known = ingest.make_parser().format_help()
    options = set(re.findall(r"--[a-z][a-z-]+", text))
    assert options
    assert [option for option in options if option not in known] == []
