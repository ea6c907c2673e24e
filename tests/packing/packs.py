"""What every pack must do: find frameworks, sinks, commands and SQL inside itself."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.kit.databases import Database, query

APPLICATION = Path(__file__).with_name("application.py")
COMMANDS = {"all", "pre", "post", "status", "dry-run", "refresh", "roles"}


def run(*command: str | Path, code: int = 0, environ: Mapping[str, str] | None = None) -> str:
    """Run a program in an environment without the source, to its end, and return what it wrote to stdout."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        env={**inherited, **(environ or {})}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def check_pack(pack: list[str | Path], database: Database, inside: Path, **environ: str) -> None:
    """See that a packed `APPLICATION` does what the unpacked one does, with the package of the pack itself."""

    def ask(*arguments: str, code: int = 0) -> str:
        return run(*pack, *arguments, code=code, environ=environ | {"DATABASE_URL": database.dsn})

    found: dict[str, Any] = json.loads(ask("show"))
    assert found["file"].startswith(str(inside)), found["file"]
    assert found["endpoint"] == "/shop/items/{id}"
    assert found["frameworks"] == ["Django", "Litestar", "Quart", "Starlette", "StarletteBase"]
    for scheme in ("http://", "memory://", "postgresql://"):
        assert scheme in found["schemes"]
    assert set(ask("migrate", "--help").replace(",", " ").split()) >= COMMANDS
    ask("migrate", "status", code=1)
    done = json.loads(ask("migrate", "all", "--json"))
    assert done["applied"]
    assert (done["flavour"], done["pending"]) == (database.flavour, [])
    assert json.loads(ask("store", database.dsn)) == {"stored": 1}
    assert query(database.dsn, "SELECT count(*) FROM analytics_events WHERE service = 'packed'") == 1
    ask("ingest", "--host", "0.0.0.0", code=2)
