"""Small migrations of their own for these tests: their subject is the runner, not the schema."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

STEPS = {
    "001_pre_events.sql": "-- Make a table\nCREATE TABLE things (id integer PRIMARY KEY);\n",
    "002_post_view.sql": "-- Make a view\nCREATE VIEW seen AS SELECT count(*) AS n FROM things;\n",
    "003_pre_rows.sql": "-- Fill it\n-- transaction: no\nINSERT INTO things VALUES (1) ON CONFLICT DO NOTHING\n"
    "-- next\nINSERT INTO things VALUES (2) ON CONFLICT DO NOTHING;\n",
    "004_post_hyper.sql": "-- Have a hypertable\n-- timescaledb\nCREATE TABLE h (t timestamptz NOT NULL);\n"
    "SELECT create_hypertable('h', 't');\n",
    "005_post_plain.sql": "-- Have a table\n-- postgresql\nCREATE TABLE h (t timestamptz NOT NULL);\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with a few steps."""
    target = tmp_path / "migrations"
    target.mkdir()
    for name, sql in STEPS.items():
        (target / name).write_text(sql)
    return target


@pytest.fixture
def folder_of(tmp_path: Path) -> Callable[..., Path]:
    """Give ``folder_of({name: sql})``: a folder with these steps."""

    def make(steps: dict[str, str], name: str = "steps") -> Path:
        target = tmp_path / name
        target.mkdir()
        for file, sql in steps.items():
            (target / file).write_text(sql)
        return target

    return make
