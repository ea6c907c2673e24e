"""Erase people in every warehouse."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from asgi_analytics.errors import ConfigError, SinkError
from asgi_analytics.exports.exporter import Exporter
from asgi_analytics.exports.session import SQL, open_session

if TYPE_CHECKING:
    from collections.abc import Sequence


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an erasure in one export."""

    name: str
    rows: int
    """Deleted in the warehouse by this call."""
    is_done: bool
    """Otherwise a later run does it: the warehouse was away, or another process runs the export."""
    error: str | None = None


async def erase_in_exports(
    database_url: str, user_ids: Sequence[UUID], *, schema: str | None = None, patience: float = 10.0
) -> tuple[Erased, ...]:
    """Erase users, as the column ``user_id`` has them, in the warehouses of all exports.

    Call it when their events are deleted from the database: what is stored of them is copied again. Each export gets a
    run, of which failures may last ``patience`` seconds; what cannot be done then is noted, and done by the next run.
    SQL alone notes it by ``SELECT analytics_erase_from_exports(users)``, which may be part of the transaction that
    deletes the events. Raises `SinkError` if it cannot even be noted.
    """
    async with open_session(database_url, schema) as connection:
        await connection.fetchval(SQL["want_erasures"], [str(one) for one in user_ids])
        names = [row["name"] for row in await connection.fetch(SQL["names"])]
    return tuple([await _erase(database_url, name, schema, patience) for name in names])


async def _erase(database_url: str, name: str, schema: str | None, patience: float) -> Erased:
    try:
        ran = await Exporter(database_url, name, schema=schema).run(patience=patience)
    except (SinkError, ConfigError) as error:
        return Erased(name=name, rows=0, is_done=False, error=str(error))
    return Erased(name=name, rows=ran.erased, is_done=True)
