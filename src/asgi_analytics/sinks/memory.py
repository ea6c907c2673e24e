"""A sink that keeps events in memory, for tests and for a look at what an application tracks."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self
from uuid import UUID

from asgi_analytics.events.base import EnrichedEvent
from asgi_analytics.sinks.base import Receipt, Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence


class MemorySink:
    """Keeps every event once, by its id, in ``events``, as `EnrichedEvent` in the order of arrival."""

    schemes: ClassVar[tuple[str, ...]] = ("memory",)

    def __init__(self) -> None:
        self.events: list[EnrichedEvent] = []
        self._seen: set[UUID] = set()

    @classmethod
    def from_url(cls, url: str, *, token: str | None = None) -> Self:
        """Return a new sink for ``memory://``."""
        return cls()

    async def write(self, batch: Sequence[bytes]) -> Receipt:
        """Keep the events of a batch, and reject what is not an event."""
        duplicates = 0
        rejected: list[Rejected] = []
        for index, line in enumerate(batch):
            try:
                event = EnrichedEvent.from_json(line)
            except (ValueError, RecursionError):
                rejected.append(Rejected(index=index, reason="malformed"))
                continue
            if event.event_id in self._seen:
                duplicates += 1
                continue
            self._seen.add(event.event_id)
            self.events.append(event)
        return Receipt(duplicates=duplicates, rejected=rejected)

    async def aclose(self) -> None:
        """Do nothing: a test looks at the events afterwards."""
