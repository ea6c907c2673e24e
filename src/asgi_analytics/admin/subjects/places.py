"""Every place where a person may be, in the order in which a request goes through them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from asgi_analytics.admin.subjects.events import Events
from asgi_analytics.admin.subjects.exports import Exports
from asgi_analytics.admin.subjects.payloads import Payloads
from asgi_analytics.admin.subjects.sessions import Sessions
from asgi_analytics.admin.subjects.spool import Spool
from asgi_analytics.admin.subjects.tables import Tables

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asgi_analytics.admin.subjects.report import Exported
    from asgi_analytics.admin.subjects.work import Work


class Place(Protocol):
    """Where a person may be.

    Each may be asked again after a run that was killed, and does then what is left. What it changes it counts with
    `Work.count`, in the transaction that changes it.
    """

    def export(self, work: Work) -> AsyncIterator[Exported]:
        """Yield every row that holds the person."""
        ...

    async def anonymise(self, work: Work) -> None:
        """Take the person out of the rows."""
        ...

    async def erase(self, work: Work) -> None:
        """Delete the rows."""
        ...


PLACES: tuple[Place, ...] = (Spool(), Events(), Tables(), Sessions(), Payloads(), Exports())
"""The spool first, from where events go into the database; raw events before what is computed of them, and before their
copies: what an export has read by then it erases later."""
