"""What can be asked of funnels: filters, values, who dropped out, and funnels that are kept by name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest

from asgi_analytics.errors import InvalidQuery, NoConnection
from asgi_analytics.reading import AnalyticsReader
from asgi_analytics.reading.steps import Filter, Step
from tests.kit.databases import Database
from tests.kit.proxy import Proxy
from tests.reading.happened import insert
from tests.reading.stories import DAY, ME, MIDNIGHT, counts, happened, minutes, story


async def test_values_beyond_a_hundred_are_one(database: Database, reader: AnalyticsReader) -> None:
    """What an application calls ``other`` is among them; the rows add up."""
    events = []
    for number in range(1, 131):
        plan = "other" if number > 125 else f"plan{number % 105:03}"
        events.append(happened(MIDNIGHT, "a", UUID(int=number), plan=plan))
    events.append(happened(MIDNIGHT, "a", UUID(int=200)))
    await insert(await database.connect(), events)
    found = await reader.query_funnel(
        ["a", "b"], breakdown="data.plan", start=MIDNIGHT - minutes(1), end=MIDNIGHT + minutes(1)
    )
    shares = {share.value: share.steps[0].count for share in found.breakdown}
    assert len(found.breakdown) == len(shares) == 102
    assert [share.value for share in found.breakdown[-2:]] == ["other", None]
    assert (shares["plan001"], shares["plan050"], shares["other"], shares[None]) == (2, 1, 10, 1)
    assert sum(shares.values()) == found.steps[0].count == 131


OPERATORS: list[tuple[Any, Any, str]] = [
    ("exact", 1, "1"), ("exact", "1", "12"), ("exact", True, "3"), ("exact", "true", "3"), ("exact", "x'--", "4"),
    ("is_not", 1, "23456"), ("is_not", "x'--", "12356"), ("is_not", True, "12456"), ("contains", "'", "4"),
    ("contains", "%", ""), ("not_contains", "'", "12356"), ("is_set", None, "123456"), ("is_not_set", None, "789"),
    ("greater_than", 0.5, "1"), ("greater_than", -5, "16"), ("less_than", 1, "6"), ("between", [-3, 1], "16"),
    ("between", [2, 3], ""), ("in", [1, "x'--", True], "134"), ("in", [], ""), ("in", [1.0], "1"),
]  # fmt: skip


async def test_filters(database: Database, reader: AnalyticsReader) -> None:
    """What is not there matches nothing but ``is_not_set``, and is no error: neither null nor another type."""
    values: dict[int, Any] = {1: 1, 2: "1", 3: True, 4: "x'--", 5: {"deep": 1}, 6: -3, 7: None}
    events = [happened(MIDNIGHT, "a", UUID(int=n), **{'odd "n$1': one}) for n, one in values.items()]
    events.append(happened(MIDNIGHT, "a", UUID(int=8)))
    events.append(happened(MIDNIGHT, "a", UUID(int=9), other={'odd "n$1': 1}))
    await insert(await database.connect(), events)
    for operator, value, wanted in OPERATORS:
        one = Filter('data.odd "n$1', operator, value)
        found = await reader.query_funnel(
            [Step("a", [one])], breakdown="user_id", start=MIDNIGHT - DAY, end=MIDNIGHT + DAY
        )
        users = [share.value for share in found.breakdown if share.value is not None]
        assert sorted(UUID(user).int for user in users) == list(map(int, wanted)), one
        assert found.steps[0].count == len(wanted)


async def test_fields_of_every_kind(database: Database, reader: AnalyticsReader) -> None:
    event = happened(MIDNIGHT, "a", session="s1", deep={"list": [1], "n": 2})
    await insert(await database.connect(), [event])
    for field, value in (
        ("data.deep.n", 2), ("context.environment", "production"), ("event_type", "a"), ("service", "shop"),
        ("session_id", "s1"), ("user_id", ME.hex), ("data.deep.list", "[1]"),
    ):  # fmt: skip
        assert await counts(reader, [Step("a", [Filter(field, "exact", value)])]) == [1], field
        assert await counts(reader, [Step("a", [Filter(field, "is_not", value)])]) == [0], field


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"steps": []}, "steps", "a list of 1 to 20"), ({"steps": ["a"] * 21}, "steps", "a list of 1 to 20"),
    ({"steps": "a"}, "steps", "a list"), ({"steps": [""]}, "steps", "a list"), ({"steps": [7]}, "steps", "a list"),
    ({"steps": [{"event_type": "a", "when": 1}]}, "steps", "a list"),
    ({"steps": [Step("a", [Filter("n", "exact", 1)])]}, "steps", "a field that is not known"),
    ({"steps": [Step("a", [Filter("data.", "exact", 1)])]}, "steps", "a field that is not known"),
    ({"steps": [Step("a", [Filter("timestamp", "exact", "x")])]}, "steps", "a field that is not known"),
    ({"steps": [Step("a", [Filter("data.n", "exact", None)])]}, "steps", "exact whose value must be"),
    ({"steps": [Step("a", [Filter("data.n", "between", [1])])]}, "steps", "a list of two numbers"),
    ({"steps": [Step("a", [Filter("data.n", "greater_than", "1")])]}, "steps", "a number"),
    ({"steps": [Step("a", [Filter("data.n", "in", 1)])]}, "steps", "a list"),
    ({"steps": [Step("a", [Filter("service", "exact", 1)])]}, "steps", "a text"),
    ({"steps": [Step("a", [Filter("data.n", "contains", 1)])]}, "steps", "a text"),
    ({"steps": [Step("a", [Filter("data.n", "like", "%")])]}, "steps", "a list"),  # type: ignore[arg-type]
    ({"exclusions": [Step("a", [Filter("n", "exact", 1)])]}, "exclusions", "a field that is not known"),
    ({"conversion_window": 0}, "conversion_window", "a duration"),
    ({"conversion_window": timedelta(days=400)}, "conversion_window", "a duration"),
    ({"conversion_window": "14 d"}, "conversion_window", "a duration"),
    ({"order": "any"}, "order", "one of ordered, strict, unordered"),
    ({"by": "visitor"}, "by", "one of user, session"), ({"breakdown": "plan"}, "breakdown", "is not known"),
    ({"attribution": "all"}, "attribution", "one of first_touch, last_touch"),
    ({"order": "unordered", "steps": [Step("a", [Filter("data.n", "exact", n)]) for n in range(7)]}, "steps", "more"),
]  # fmt: skip


async def test_what_cannot_be_asked_is_told(database: Database, reader: AnalyticsReader) -> None:
    for arguments, field, words in WRONG:
        with pytest.raises(InvalidQuery, match=words) as caught:
            await reader.query_funnel(**{"steps": ["a", "b"], **arguments})
        assert caught.value.field == field, arguments


async def test_funnels_are_kept_by_name(database: Database, reader: AnalyticsReader) -> None:
    steps: list[str | Step] = ["a", Step("b", [Filter("data.n", "in", [1, "x"])], name="buys")]
    made = await reader.create_funnel("checkout'", steps, description="From a to b", conversion_window=minutes(5))
    assert (made.name, made.description, made.conversion_window) == ("checkout'", "From a to b", 300)
    assert made.steps == [Step("a"), steps[1]]
    assert await reader.get_funnel("checkout'") == made
    other = await reader.create_funnel("A funnel", ["b"])
    assert other.conversion_window == 14 * 86_400
    assert await reader.list_funnels() == [other, made]
    with pytest.raises(InvalidQuery, match="name: is taken"):
        await reader.create_funnel("A funnel", ["c"])
    with pytest.raises(InvalidQuery, match="steps: has a field"):
        await reader.create_funnel("wrong", [Step("a", [Filter("n", "is_set")])])
    with pytest.raises(InvalidQuery, match="name: must not have a slash"):
        await reader.create_funnel("a/b", ["a"])
    await reader.delete_funnel("A funnel")
    assert await reader.list_funnels() == [made]
    for gone in (reader.get_funnel, reader.delete_funnel, reader.query_funnel_conversions):
        with pytest.raises(InvalidQuery, match="name: no funnel has it"):
            await gone("A funnel")


@pytest.mark.on_servers("a file does not lose its answer")
async def test_a_funnel_whose_commit_is_not_answered_is_not_told_as_kept(
    database: Database, reader_dsn: str, make_proxy: Callable[..., Proxy]
) -> None:
    proxy = make_proxy(database)
    login = urlsplit(reader_dsn)
    dsn = login._replace(netloc=f"{login.netloc.rpartition('@')[0]}@{proxy.host}:{proxy.port}").geturl()
    async with AnalyticsReader.from_url(dsn) as reader:
        await reader.list_funnels()
        proxy.lose_answer(b"COMMIT")
        with pytest.raises(NoConnection):
            await reader.create_funnel("checkout", ["a", "b"])
        assert proxy.lost == 1
        assert [one.name for one in await reader.list_funnels()] == ["checkout"]  # nobody could know


async def test_who_dropped_out_where(database: Database, reader: AnalyticsReader) -> None:
    connection = await database.connect()
    for number, text in enumerate(["a0 b1 c2", "a3 b4", "a5", "a6 b9"], 1):
        await insert(connection, story(text, user=UUID(int=number)))
    await reader.create_funnel("checkout", ["a", "b", "c"])
    options: dict[str, Any] = {"start": MIDNIGHT - minutes(1), "end": MIDNIGHT + minutes(60)}

    async def users(**arguments: Any) -> list[int]:
        rows = await reader.query_funnel_conversions("checkout", **options, **arguments)
        return [row.user_id.int for row in rows if row.user_id is not None]

    assert await users() == [4, 3, 2, 1]
    assert await users(limit=2) == [4, 3]
    assert await users(step=2) == [4, 2, 1]
    assert await users(step=2, dropped=True) == [3]
    assert await users(step=3) == [1]
    assert await users(step=3, dropped=True) == [4, 2]
    [row] = await reader.query_funnel_conversions("checkout", step=3, **options)
    at = [MIDNIGHT + minutes(n) for n in range(3)]
    assert (row.started_at, row.completed_at, row.current_step, row.completed) == (at[0], at[2], 3, True)
    assert (row.step_timestamps, row.session_id) == (at, None)
    by_session = await reader.query_funnel_conversions("checkout", by="session", step=2, dropped=True, **options)
    assert [(one.user_id, one.completed_at, one.current_step) for one in by_session] == [(UUID(int=3), None, 1)]
    assert by_session[0].session_id is not None
    for step in (0, 4):
        with pytest.raises(InvalidQuery, match="step: must be"):
            await users(step=step)
    with pytest.raises(InvalidQuery, match="step: nobody is dropped"):
        await users(step=1, dropped=True)
