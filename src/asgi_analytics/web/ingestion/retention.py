"""How old an event may be: as long as the database keeps the rows of its type."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from asgi_analytics.errors import OperatorError
from asgi_analytics.log import failure, log_problem
from asgi_analytics.sinks.base import KnowsRetention

if TYPE_CHECKING:
    from collections.abc import Mapping

USUAL: Mapping[str | None, timedelta] = {None: timedelta(days=90)}
"""For a sink that does not say for how long rows are kept."""

EVERY_SECONDS = 60.0
"""Seconds after which the service looks whether the retention has changed."""


class Retention:
    """For how long a sink keeps the rows of each type. Nothing is read before the first `current`."""

    def __init__(self, sink: object) -> None:
        self._sink = sink if isinstance(sink, KnowsRetention) else None
        self._known: Mapping[str | None, timedelta] | None = None
        self._due = 0.0

    async def current(self) -> Mapping[str | None, timedelta]:
        """Return for how long rows are kept by type, with None for all other types; looks once a minute.

        If that fails, what was known goes on. Raises `SinkError` if nothing was ever read because the database is away.
        """
        if self._sink is None:
            return USUAL
        if self._known is not None and time.monotonic() < self._due:
            return self._known
        if self._known is not None:
            self._due = time.monotonic() + EVERY_SECONDS  # who comes meanwhile goes on with what is known
        try:
            self._known = await self._sink.kept_types()
        except OperatorError as error:  # an older schema of the database, perhaps
            self._known = self._known or USUAL
            log_problem(
                (self, "retention"), "events older than 90 days are refused, however long they are kept: %s",
                failure(error), level=logging.ERROR,
            )  # fmt: skip
        except Exception as error:
            if self._known is None:
                raise
            log_problem((self, "retention"), "the retention was not read again: %s", failure(error))
        self._due = time.monotonic() + EVERY_SECONDS
        return self._known
