"""The loop: fix a page, load it, note that it is done. The next process goes on wherever one was ended."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from asgi_analytics.errors import ConfigError, OperatorError, SinkError, TransientError
from asgi_analytics.exports import scheme_of, snapshots, warehouse_from_url
from asgi_analytics.exports.base import SCHEMA, Refused
from asgi_analytics.exports.enrichment import stored_categories
from asgi_analytics.exports.pages import Page, PageReader
from asgi_analytics.exports.session import SQL, export_lock, open_session
from asgi_analytics.exports.state import OtherProcess, Place, State
from asgi_analytics.log import failure, log, log_problem, solved

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgi_analytics.exports.base import Warehouse
    from asgi_analytics.exports.pages import Lane
    from asgi_analytics.exports.state import Export

T = TypeVar("T")

FIRST_BACKOFF, LAST_BACKOFF = 0.5, 300.0
OPERATOR_BACKOFF = 60.0
"""Seconds between attempts, at most: a random part of them is waited."""
LOCK_SECONDS = 5.0
"""For how long a run of many waits for another process to end its run; then it counts as failed."""
ATTEMPTS = 3
"""So often a row is sent alone before it becomes a dead letter."""
WINDOW_SECONDS = 60.0
"""After so many seconds of a backfill what is new has its turn."""
FIRST_ROWS = 1_000_000
"""What a page has at first; the warehouse says how many it takes."""


class Ran(msgspec.Struct, kw_only=True):
    """What a run has done."""

    name: str
    events: int = 0
    """Stored in the warehouse."""
    dead_letters: int = 0
    """Refused, and kept."""
    batches: int = 0
    erased: int = 0
    """Rows of users who were to be erased."""


class Exporter:
    """Runs one export. Constructing it connects to nothing.

    ``schema`` names where the tables are; by default the ``search_path`` decides, unless the URL ends with
    ``?schema=name``. ``warehouse`` takes the place of the one that the export's URL names.
    """

    def __init__(
        self, database_url: str, name: str, *, schema: str | None = None, warehouse: Warehouse | None = None
    ) -> None:
        self.database_url = database_url
        self.name = name
        self.schema = schema
        self._given = warehouse
        self._stopping = asyncio.Event()
        self._problem = object()  # this exporter's own in the log

    def stop(self) -> None:
        """Let the run end after the page that is being loaded."""
        self._stopping.set()

    async def run(self, *, patience: float = 60.0, retry: bool = False) -> Ran:
        """Copy everything that was committed before the call, and what is left of a backfill.

        What fails for a while is tried again, after a random part of half a second, then twice as long, and so on, for
        ``patience`` seconds since something was stored. ``retry`` sends the dead letters again. Raises `ConfigError` if
        there is no such export, `OperatorError`, and `TransientError` when the patience is over: the next run goes on
        where this one was, whatever the error.
        """
        ran = Ran(name=self.name)
        pause = FIRST_BACKOFF
        began = time.monotonic()
        seen = 0
        while True:
            try:
                await self._run_once(ran, patience, retry=retry)
                return ran
            except TransientError as error:
                if ran.batches > seen:
                    seen, pause, began = ran.batches, FIRST_BACKOFF, time.monotonic()
                wait = max(random.uniform(0, pause), error.retry_after or 0)  # noqa: S311  # not a secret
                if self._stopping.is_set() or time.monotonic() + wait - began > patience:
                    raise
                log_problem(self._problem, "the export %s is tried again: %s", self.name, error)
                await self._pause(wait)
                pause = min(2 * pause, LAST_BACKOFF)

    async def run_every(self, seconds: float, tell: Callable[[Ran], None] | None = None) -> None:
        """Run until `stop` is called; a run begins ``seconds`` after the one before it began, or when that has ended.

        Errors are logged, and tried again after a random part of a growing pause, of five minutes at most. ``tell``
        gets what each run has done. Raises `ConfigError` if there is no such export.
        """
        pause = FIRST_BACKOFF
        while not self._stopping.is_set():
            began = time.monotonic()
            ran = Ran(name=self.name)
            wait = 0.0
            try:
                await self._run_once(ran, LOCK_SECONDS, retry=False)
                pause = FIRST_BACKOFF
                solved(self._problem)
                wait = seconds - (time.monotonic() - began)
            except SinkError as error:
                pause = FIRST_BACKOFF if ran.batches else min(2 * pause, LAST_BACKOFF)
                longest = pause if isinstance(error, TransientError) else max(pause, OPERATOR_BACKOFF)
                wait = random.uniform(0, longest)  # noqa: S311  # not a secret
                wait = max(wait, getattr(error, "retry_after", None) or 0)
                log_problem(self._problem, "the export %s failed and is tried again: %s", self.name, error)
            if tell is not None:
                tell(ran)
            await self._pause(wait)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), max(0.0, seconds))

    async def _run_once(self, ran: Ran, wait: float, *, retry: bool) -> None:
        async with open_session(self.database_url, self.schema) as connection:
            state = State(connection, self.name)
            if await state.export() is None:
                raise ConfigError(f"there is no export {self.name}: analytics-export init {self.name} URL makes it")
            async with export_lock(connection, self.name, wait):
                timeline = await _timeline(connection)
                export = await state.export()
                if export is None:
                    raise ConfigError(f"the export {self.name} was removed")
                reader = PageReader(connection, await stored_categories(connection))
                work = Work(reader, state, export, timeline, self._given or warehouse_from_url(export.url), ran)
                try:
                    await work.do_all(self._stopping, retry=retry)
                except OtherProcess:
                    raise TransientError(f"another process runs the export {self.name}") from None
                except SinkError as error:
                    if not connection.is_closed():
                        await state.do("fail", str(error))
                    raise
                finally:
                    await work.close()


async def _timeline(connection: Any) -> str:
    """Return the timeline of the server. Raises unless its transactions are those whose numbers are stored."""
    server = await connection.fetchrow(SQL["server"])
    if server["is_standby"]:
        raise OperatorError("this server is a standby, which does not know what is under way: use the primary's URL")
    if not server["is_origin"]:
        raise OperatorError(
            "this is another cluster than the one that numbered the rows, after a restored dump or an upgrade: stop "
            "the exporters of the old one, then run analytics-export rebase"
        )
    return str(server["timeline"])


class Work:
    """What one session does."""

    def __init__(
        self, reader: PageReader, state: State, export: Export, timeline: str, warehouse: Warehouse, ran: Ran
    ) -> None:
        self._state = state
        self._export = export
        self._timeline = timeline
        self._warehouse = warehouse
        self._kind = scheme_of(export.url)
        self._reader = reader
        self._ahead: tuple[Place, Page] | None = None
        self._ran = ran

    async def do_all(self, stopping: asyncio.Event, *, retry: bool) -> None:
        """Finish what an earlier run has begun, erase who is to be erased, copy what is new, and what is old."""
        await self._call(lambda: self._warehouse.prepare(SCHEMA))
        await self._state.do("make_lanes", FIRST_ROWS)
        lanes: tuple[Lane, ...] = ("window", "backfill", "retry")
        for lane in lanes:
            # With its rows as they were: those of who is erased below may be on their way.
            while (await self._state.place(lane)).until is not None:
                await self._page(lane)
        await self._erase()
        if self._export.window_until is not None:
            await self._finish_window(stopping)
        await self._open_window()
        await self._finish_window(stopping)
        if retry:
            await self._retry(stopping)
        begun = time.monotonic()
        while not stopping.is_set() and await self._backfill_page():
            if time.monotonic() - begun > WINDOW_SECONDS:
                begun = time.monotonic()
                await self._open_window()
                await self._finish_window(stopping)
        if not stopping.is_set():
            await self._state.do("succeed")
            await self._state.forget_batches()

    async def close(self) -> None:
        """End what the warehouse has open."""
        with contextlib.suppress(Exception):
            await asyncio.to_thread(self._warehouse.close)

    async def _reload(self) -> Export:
        export = await self._state.export()
        if export is None:
            raise OtherProcess
        self._export = export
        return export

    async def _open_window(self) -> None:
        await self._state.do("open_window")
        await self._reload()

    async def _finish_window(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            if not await self._page("window"):
                await self._state.do("close_window")
                await self._reload()
                return

    async def _backfill_page(self) -> bool:
        """Copy a page of what is old; False if there is none."""
        export = await self._reload()
        if not export.has_backfill:
            return False
        if export.backfill_range is None:
            await self._state.do("begin_range")
            await self._reload()
        if not await self._page("backfill"):
            await self._state.do("end_range")
        return True

    async def _retry(self, stopping: asyncio.Event) -> None:
        for statement in ("end_retry", "want_retry"):
            await self._state.do(statement)
        while not stopping.is_set():
            if not await self._page("retry"):
                await self._state.do("end_retry")
                return

    async def _erase(self) -> None:
        self._ahead = None  # it may have rows of who is erased now
        while True:
            users, requested_at = await self._state.erasures()
            if not users:
                return
            self._ran.erased += await self._call(lambda users=users: self._warehouse.erase(users))  # type: ignore[misc]
            await self._state.do("end_erasures", users, requested_at)

    async def _page(self, lane: Lane) -> bool:
        """Copy the next page of a lane, or the one that is fixed; False if there is none."""
        place = await self._state.place(lane)
        page = await self._next(place)
        if place.until is None:
            if not page.rows:
                return False
            await self._state.fix(place, page.key(-1), self._timeline, page.rows[-1], self._token(place), self._kind)
        elif page.rows:
            await self._state.note_batch(self._token(place), self._kind, page.rows[-1])
        await self._load(place, page)
        return True

    async def _next(self, place: Place) -> Page:
        """Return the page of a place: the one that was read ahead, if it is of this place."""
        ahead, self._ahead = self._ahead, None
        return ahead[1] if ahead is not None and ahead[0] == place else await self._read(place)

    async def _read(self, place: Place) -> Page:
        export = self._export
        limit = min(place.page_rows, self._warehouse.max_rows)
        if place.lane == "window":
            if export.window_until is None:
                return Page([], [])
            ranges = snapshots.between(export.exported, export.window_until)
            return await self._reader.window(ranges, place.after, place.until, limit)
        if place.lane == "retry":
            return await self._reader.retry(export.name, place.after, place.until, limit)
        if export.backfill_range is None:
            return Page([], [])
        since, before = export.backfill_range
        return await self._reader.backfill(export.backfill_seen, since, before, place.after, place.until, limit)

    def _token(self, place: Place) -> str:
        """Return the token of a page.

        The timeline is that under which it was fixed. A server that was promoted goes on with a page that it knows of,
        whose answer may be lost; one that it does not know of has another token than the page that it fixes instead.
        """
        timeline = place.timeline or self._timeline
        return f"{self._export.name}-{self._export.identity}-{timeline}-{place.lane[0]}{place.sequence}"

    async def _load(self, place: Place, page: Page) -> None:
        """Load a page and note it; or what is to be done because it was refused."""
        token = self._token(place)
        began = time.monotonic()
        await self._state.batch_sent(token)
        try:
            if page.rows:  # else all of them were erased since the page was fixed
                await self._send(place, page, token)
        except Refused as refused:
            await self._state.batch_done(token, "failed", 0, _since(began), str(refused))
            await self._make_smaller(place, page, token, refused)
            return
        except SinkError as error:
            await self._state.batch_done(token, "pending", 0, _since(began), str(error))
            raise
        await self._state.advance(place, self._larger(place), page.rows)
        await self._state.batch_done(token, "completed", len(page.rows), _since(began), None)
        self._ran.batches += 1
        self._ran.events += len(page.rows)

    async def _send(self, place: Place, page: Page, token: str) -> None:
        """Load a page; read the next one meanwhile, unless this one was fixed earlier: then others may come first."""
        reading = None
        if place.until is None:
            following = Place(place.lane, place.sequence + 1, self._larger(place), 0, page.key(-1), None)
            reading = asyncio.create_task(self._read_ahead(following))
        try:
            await self._call(lambda: self._warehouse.load(page.rows, token))
        finally:
            if reading is not None:
                await asyncio.wait({reading})  # the connection does one thing at a time

    async def _read_ahead(self, place: Place) -> None:
        with contextlib.suppress(Exception):  # what is wrong is told when it is this page's turn
            self._ahead = place, await self._read(place)

    def _larger(self, place: Place) -> int:
        """Return how many rows the next page of a lane may have."""
        return min(2 * min(place.page_rows, self._warehouse.max_rows), FIRST_ROWS)

    async def _make_smaller(self, place: Place, page: Page, token: str, refused: Refused) -> None:
        """Fix a smaller page in place of one that was refused, or keep its only row after three attempts."""
        number = len(page.rows)
        if number > 1:
            known = [at for at in refused.places if 0 <= at < number]
            size = (known[0] or 1) if known else number // 2
            await self._state.shrink(place, page.key(size - 1), self._timeline, size)
        elif await self._state.refuse_again(place) >= ATTEMPTS:
            await self._state.advance(place, self._larger(place), page.rows, refusal=(str(refused), token))
            self._ran.dead_letters += 1
            log.warning("the export %s keeps a dead letter, see analytics_export_dead_letters", self._export.name)

    async def _call(self, call: Callable[[], T]) -> T:
        """Call the warehouse in a thread; raise `SinkError` or `Refused`."""
        task = asyncio.ensure_future(asyncio.to_thread(call))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})  # a warehouse is called once at a time
            raise
        except (SinkError, Refused):
            raise
        except Exception as error:
            raise OperatorError(f"the warehouse failed: {failure(error)}") from error


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
