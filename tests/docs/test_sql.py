"""The SQL of README and docs runs on what the migrations have made, on both databases."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.kit.databases import Database

ROOT = Path(__file__).parent.parent.parent
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for number, block in enumerate(re.findall(r"^```sql\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
async def test_the_sql_of_the_docs_runs(database: Database, block: str) -> None:
    connection = await database.connect()
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("CREATE ROLE application; CREATE ROLE analytics_writer; CREATE ROLE analytics_reader")
    await connection.execute(block)
    await transaction.rollback()
