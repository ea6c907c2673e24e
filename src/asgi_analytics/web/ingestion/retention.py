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

FOREVER: Mapping[str | None, timedelta] = {None: timedelta(days=365_000)}
"""Until it is known: what is stored although it is too old is dropped later, what is refused is lost."""

EVERY_SECONDS = 60.0
"""Seconds after which the service looks whether the retention has changed."""


class Retention:
    """For how long a sink keeps the rows of each type. Nothing is read before the first `current`."""

    def __init__(self, sink: object) -> None:
        self._sink = sink if isinstance(sink, KnowsRetention) else None
        self._known = USUAL if self._sink is None else FOREVER
        self._due = 0.0

    async def current(self) -> Mapping[str | None, timedelta]:
        """Return for how long rows are kept by type, with None for all other types; looks once a minute.

        If that fails, what was known goes on. Nothing is too old before anything is known.
        """
        if self._sink is None or time.monotonic() < self._due:
            return self._known
        if self._known is not FOREVER:
            self._due = time.monotonic() + EVERY_SECONDS  # who comes meanwhile goes on with what is known
        try:
            self._known = await self._sink.kept_types()
        except OperatorError as error:  # an older schema of the database, perhaps
            if self._known is FOREVER:
                self._known = USUAL
            log_problem(
                (self, "retention"), "events older than 90 days are refused, however long they are kept: %s",
                failure(error), level=logging.ERROR,
            )  # fmt: skip
        except Exception as error:
            log_problem((self, "retention"), "the retention was not read: %s", failure(error))
            if self._known is FOREVER:
                return self._known  # the database is away, and no event of this request will be stored
        self._due = time.monotonic() + EVERY_SECONDS
        return self._known
