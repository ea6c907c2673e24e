"""The table ``funnel_conversions`` of SQLite says what the question says, after every refresh."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from asgi_analytics.reading import AnalyticsReader
from tests.kit.sqlite import SqliteDatabase
from tests.schema.happenings import DAY, happened, now


async def test_the_table_says_what_the_question_says(tmp_path: Path) -> None:
    file = SqliteDatabase(tmp_path / "analytics.db")
    await file.migrate()
    random = Random(1)
    kinds = ("product_viewed", "cart_filled", "order_placed")
    events = [
        happened(random, now() - DAY * random.uniform(0.1, 9), random.choice(kinds), user=random.randrange(20))
        for _ in range(200)
    ]
    await file.insert(events)
    async with AnalyticsReader.from_url(file.url) as reader:
        await reader.create_funnel("checkout", list(kinds))
        await file.refresh()
        wanted: list[Any] = await reader.query_funnel_conversions("checkout")
        [funnel] = await reader.list_funnels()
    found = file.rows("funnel_conversions")
    assert wanted
    assert [(row["funnel_id"], row["user_id"], row["current_step"], bool(row["completed"])) for row in found] == [
        (str(funnel.id), one.user_id, one.current_step, one.completed) for one in wanted
    ]
    assert [len(json.loads(row["step_timestamps"])) for row in found] == [len(one.step_timestamps) for one in wanted]
    file.execute("DELETE FROM analytics_events")
    await file.refresh()
    assert file.rows("funnel_conversions") == []
