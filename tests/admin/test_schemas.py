"""The registry: schemas and categories come from classes, and what has no class is checked by them."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import asyncpg
import jsonschema
import msgspec
import pytest

from asgi_analytics import AnalyticsClient, AnalyticsWorker, Event
from asgi_analytics.admin.retention import retention
from asgi_analytics.admin.schemas import classes_of, list_schemas, sync_schemas
from asgi_analytics.encoding.definition import breaking, definition, example, is_same
from asgi_analytics.errors import ConfigError
from asgi_analytics.events.base import Category, event_types
from asgi_analytics.sinks.http import HttpSink
from asgi_analytics.sinks.timescale import TimescaleSink
from asgi_analytics.web.ingestion import create_ingestion_app
from tests.admin.roles import Roles
from tests.kit.databases import Database
from tests.kit.scripts import SOURCE
from tests.reading.conftest import database as any_database
from tests.web.ingestion.service import Process, client, encode, event

__all__ = ["any_database"]

ORDER = str(uuid4())


class Line(msgspec.Struct):
    sku: str
    number: int = 1


def order(version: int) -> type[Event]:
    """Return the class of an order as it was in one release; there is one of that type at a time."""
    gc.collect()
    note, more = (int if version == 4 else str), {"extra": int | None} if version >= 2 else {}
    fields: dict[str, Any] = {"order_id": str, "lines": list[Line], "note": note | None, **more}
    if version == 3:
        del fields["note"]
        fields["currency"] = str
    space: dict[str, Any] = {"__annotations__": {**fields, "category": ClassVar[Category]}, "category": "transaction"}
    space |= {name: None for name in ("note", "extra") if name in fields} | {"__module__": __name__}
    metaclass: Any = type(Event)
    made: type[Event] = metaclass("OrderShipped", (Event,), space | {"__qualname__": "OrderShipped"})
    return made


async def test_schemas_have_versions_and_breaking_changes_are_refused(any_database: Any) -> None:
    connection = await any_database.connect()

    async def sync(version: int, **options: Any) -> tuple[str, int, tuple[str, ...]]:
        report = await sync_schemas(any_database.dsn, [order(version)], **options)
        [one] = report.types
        assert report.refused is (one.change == "refused")
        return one.change, one.version, one.breaking

    assert await sync(1) == ("new", 1, ())
    assert await sync(1) == ("unchanged", 1, ())
    assert await sync(2) == ("new version", 2, ())
    wrong = ("the field note is removed", "the field currency is required now")
    assert await sync(3) == ("refused", 2, wrong)
    assert await sync(4) == ("refused", 2, ("the field note has another type",))
    assert await sync(3, allow_breaking=True) == ("new version", 3, wrong)
    rows = (await list_schemas(any_database.dsn)).schemas
    assert [(one.version, one.is_active, one.event_category, one.retention_days) for one in rows] == [
        (version, version == 3, "transaction", 7 * 365) for version in (1, 2, 3)
    ]
    assert rows[0].required_fields == ("lines", "order_id")
    known = "SELECT category FROM analytics_event_types WHERE event_type = 'order_shipped'"
    assert await connection.fetchval(known) == "transaction"
    await retention(any_database.dsn, change={"transaction": 100})
    assert {one.retention_days for one in (await list_schemas(any_database.dsn)).schemas} == {100}
    for stored, sample in await connection.fetch(
        "SELECT schema_definition::text, example_payload::text FROM analytics_event_schemas"
    ):
        jsonschema.Draft202012Validator.check_schema(json.loads(stored))
        jsonschema.validate(json.loads(sample), json.loads(stored), jsonschema.Draft202012Validator)


def test_every_class_of_the_catalogue_has_a_schema_that_a_validator_takes() -> None:
    for cls in event_types().values():
        if cls.__module__.startswith("asgi_analytics.events."):
            made = json.loads(msgspec.json.encode(definition(cls)))
            jsonschema.Draft202012Validator.check_schema(made)
            jsonschema.validate(example(made), made, format_checker=jsonschema.FormatChecker())
            assert is_same(made, made)
            assert breaking(made, made) == []


def test_what_lies_deeper_breaks_too() -> None:
    class Old(msgspec.Struct):
        title: str
        inner: Line
        tags: list[str] | None = None

    class Newer(msgspec.Struct):
        title: str | None
        inner: Line
        tags: list[str] | int | None = None

    def schema(kind: Any, **changes: Any) -> dict[str, Any]:
        made = msgspec.json.schema(kind)
        parts = made["$defs"]
        parts["Line"]["properties"] |= changes
        return {**parts.pop(kind.__name__), "$defs": parts}

    assert breaking(schema(Old), schema(Newer)) == []  # it takes more than before
    assert breaking(schema(Newer), schema(Old)) == [
        "the field title has another type",
        "the field tags has another type",
    ]
    assert breaking(schema(Old), schema(Old, sku={"type": "integer"})) == ["the field inner.sku has another type"]
    assert is_same(schema(Old), schema(Old, sku={"type": "string", "description": "of the shop"}))


MODULE = """
from typing import ClassVar
from uuid import UUID

import msgspec
from asgi_analytics import Event


class Parcel(msgspec.Struct):
    weight: float


class CrateShipped(Event):
    "A parcel left the house."
    category: ClassVar = "content"
    parcel_id: UUID
    parcels: list[Parcel]
    user_id: UUID
"""


def test_a_module_that_ends_the_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_that_exits.py").write_text("raise SystemExit(0)")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="shop_that_exits cannot be imported: SystemExit"):
        classes_of(["shop_that_exits"])


async def test_unknown_types_are_checked_by_the_registry(any_database: Any, tmp_path: Path) -> None:
    """The service has never heard of the class: the command runs in a process of its own."""
    (tmp_path / "shop_of_parcels.py").write_text(MODULE)

    async def command(*arguments: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "asgi_analytics.cli.schemas", *arguments, cwd=tmp_path,
            env={**os.environ, "DATABASE_URL": any_database.dsn, "PYTHONPATH": str(SOURCE)},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate()
        return process.returncode or 0, said.decode()

    assert (await command("sync", "shop_of_nothing"))[0] == 2
    code, said = await command("sync", "shop_of_parcels")
    assert (code, "crate_shipped  version 1  new" in said) == (0, True), said
    assert "crate_shipped" not in event_types()
    assert "crate_shipped  version 1  active  content" in (await command("list"))[1]

    good = {"parcel_id": ORDER, "parcels": [{"weight": 1}]}
    events = [
        event(event_type="crate_shipped", data=good),
        event(event_type="crate.shipped", data=good | {"more": 1}),
        event(event_type="crate_shipped", data=good | {"parcel_id": "secret"}),
        event(event_type="crate_shipped", data=good | {"parcels": [{"weight": 1}, {"weight": "secret"}]}),
        event(event_type="crate_shipped", data={"parcel_id": ORDER}),
        event(event_type="crate_shipped", data=good, user_id=...),
        event(event_type="never_heard_of"),
        event(),
    ]
    wrong = [
        (2, "not a UUID", "data.parcel_id"),
        (3, "expected float", "data.parcels[1].weight"),
        (4, "missing", "data.parcels"),
        (5, "missing", "user_id"),
        (6, "unknown event type", "event_type"),
    ]
    app = create_ingestion_app(database_url=any_database.dsn, strict_types=True)
    async with client(app) as http, app.router.lifespan_context(app):
        response = await http.post(
            "/events/batch", content=encode(events), headers={"Content-Type": "application/json"}
        )
    assert response.json()["received"] == 3, response.text
    assert [(one["index"], one["reason"], one["field"]) for one in response.json()["rejected"]] == wrong
    assert "secret" not in response.text
    (tmp_path / "events.json").write_bytes(encode(events))
    code, said = await command("check", "events.json", "--json")
    assert code == 1, said
    assert [(one["index"], one["reason"], one["field"]) for one in json.loads(said)["invalid"]] == wrong
    # What a client adds by itself may be left out.
    bare = {name: value for name, value in events[0].items() if name not in ("event_id", "timestamp", "service")}
    (tmp_path / "events.json").write_bytes(encode([events[0], events[-1], bare]))
    assert (await command("check", "events.json"))[0] == 0


async def test_the_writer_notes_categories_before_the_first_row(roles: Roles, writer_dsn: str) -> None:
    class SignUpPaid(Event):
        category: ClassVar[Category] = "transaction"

    sink = TimescaleSink(writer_dsn)
    known = "SELECT category FROM analytics_event_types WHERE event_type = $1"
    async with asyncio.timeout(30):
        analytics = AnalyticsClient(service="shop")
        async with AnalyticsWorker(analytics, sink):
            assert analytics.track(SignUpPaid())
            assert await analytics.aflush(10)
    assert await roles.admin.fetchval(known, "sign_up_paid") == "transaction"

    # A writer can make rows be kept longer, and never shorter.
    for category, expected in (("system", "transaction"), ("activity", "transaction")):
        await sink.note_event_types({"sign_up_paid": category})
        assert await roles.admin.fetchval(known, "sign_up_paid") == expected
    await sink.note_event_types({"sign_up_seen": "system"})
    await sink.note_event_types({"sign_up_seen": "activity"})
    assert await roles.admin.fetchval(known, "sign_up_seen") == "activity"
    kept = await sink.kept_types()
    assert (kept["sign_up_paid"], kept["api_request"], kept[None]) == tuple(timedelta(days=n) for n in (2555, 90, 365))
    await sink.upkeep()
    await sink.aclose()
    connection = await asyncpg.connect(writer_dsn)
    for statement in ("TABLE analytics_event_types", "UPDATE analytics_retention SET keep = '1 day'"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await connection.close()


async def test_categories_reach_the_database_through_the_service(database: Database) -> None:
    class InvoiceSettled(Event):
        category: ClassVar[Category] = "transaction"

    with Process(database.dsn) as process:
        sink = HttpSink(process.url)
        line = encode(event(event_type="invoice_settled", data={}))
        assert (await sink.write([line])).duplicates == 0
        assert (await sink.write([line])).duplicates == 1
        await sink.aclose()
    connection = await database.connect()
    known = "SELECT category FROM analytics_event_types WHERE event_type = $1"
    assert await connection.fetchval(known, "invoice_settled") == "transaction"
    assert InvoiceSettled.category == "transaction"
