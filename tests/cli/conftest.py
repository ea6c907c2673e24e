"""The command ``analytics-migrate`` on two small steps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asgi_analytics.cli.migrate import main
from tests.cli.ran import Command, Ran

STEPS = {
    "001_pre_a.sql": "-- Make a table\nCREATE TABLE a (x int);\n",
    "002_post_b.sql": "-- Make a view\nCREATE VIEW b AS SELECT * FROM a;\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    target = tmp_path / "migrations"
    target.mkdir()
    for name, sql in STEPS.items():
        (target / name).write_text(sql)
    monkeypatch.setattr("asgi_analytics.migrate.files.shipped_folder", lambda: target)
    return target


@pytest.fixture
def command(folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Give ``command("status", …)``: the command with two small steps, and what it printed."""
    for name in list(os.environ):
        if name.startswith("PG") or name.endswith("DATABASE_URL"):
            monkeypatch.delenv(name)

    def run(*arguments: str) -> Ran:
        capfd.readouterr()
        code = main(arguments)
        return Ran(code, *capfd.readouterr())

    return run
