"""The JSON of a ``DatabaseQuery`` that went well, written at once: most of it is the same for each run of a statement.

`lines.py` has what it shares with the other captured events.
"""

from __future__ import annotations

from time import time_ns
from typing import TYPE_CHECKING, Any

from asgi_analytics.context import otel_context, span_of
from asgi_analytics.encoding.ids import id_of, next_number
from asgi_analytics.encoding.records import (
    LONGEST_NAME,
    RECORD_BYTES,
    Lines,
    endpoint_json,
    fits,
    json_text,
)
from asgi_analytics.encoding.users import is_id

if TYPE_CHECKING:
    from asgi_analytics.context import RequestContext

_END = ',"outcome":"ok"},"context":{"trace_id":null,"span_id":null,"request_id":"'
_NOBODY = [None] * 6


def all_fit(user_id: object, session_id: object, endpoint: str | None, request_id: str | None) -> bool:
    """Tell whether what is known of a request is what it should be, and short enough for a record."""
    return (
        (user_id is None or (is_id(user_id) and fits(user_id)))
        and (session_id is None or (type(session_id) is str and len(session_id) <= LONGEST_NAME))
        and (endpoint is None or len(endpoint) <= LONGEST_NAME)
        and (request_id is None or len(request_id) <= LONGEST_NAME)
    )


class QueryLines(Lines):
    """Writes the lines of one service's queries."""

    event_type = "database_query"

    def __init__(self, service: str, hostname: str | None, environment: str | None) -> None:
        super().__init__(service, hostname, environment)
        self._unrequested = _END[:-1] + "null" + self.place[1:]

    def record(
        self, data: str, duration: int, rows: int | None, request: RequestContext | None
    ) -> tuple[Any, ...] | None:
        """Return the record of a query: ``data`` as `Statement` has it, microseconds, rows, and who asked.

        None where a name is too long for a record, or a user id is none.
        """
        trace = otel_context()
        span = span_of(trace) if trace else None
        user_id = session_id = endpoint = request_id = trace_id = span_id = None
        if request is not None:
            user_id, session_id, endpoint = request.user_id, request.session_id, request.endpoint
            request_id = request.request_id
            if span is None:
                span = request.span
            if not all_fit(user_id, session_id, endpoint, request_id):
                return None
        if span is not None:
            trace_id, span_id = span
        now = time_ns()
        return (
            self.writer, RECORD_BYTES + len(data), now, id_of(now, 0), next_number(), data, duration, rows,
            endpoint, user_id, session_id, trace_id, span_id, request_id,
        )  # fmt: skip

    def line(self, record: tuple[Any, ...]) -> bytes:
        """Return the event's JSON."""
        _, _, now, base, number, data, duration, rows, *around = record
        who, end = self.nobody, self._unrequested
        if around != _NOBODY:
            who, end = self._around(*around)
        affected = "" if rows is None else f',"rows_affected":{rows}'
        # No format specification, each of which would cost a tenth of the whole: milliseconds are microseconds with
        # an exponent.
        return (
            f'{self.start(now, base, number)}{who}"data":{{{data},"duration_ms":{duration}e-3{affected}{end}'
        ).encode()

    def _around(
        self,
        endpoint: str | None,
        user_id: object,
        session_id: str | None,
        trace_id: int | None,
        span_id: int | None,
        request_id: str | None,
    ) -> tuple[str, str]:
        """Return who asked, and how the line ends."""
        who, place = self.nobody, self.place
        if user_id is not None or session_id is not None:
            who, place = self.somebody(user_id, session_id)
        end = _END
        if trace_id is not None:
            ids = f'"trace_id":"{trace_id:032x}","span_id":"{span_id:016x}"'
            end = f',"outcome":"ok"}},"context":{{{ids},"request_id":"'
        if endpoint is not None:
            end = f',"endpoint":{endpoint_json(endpoint)}{end}'
        if request_id is None:
            return who, f"{end[:-1]}null{place[1:]}"
        return who, f"{end}{request_id if request_id.isalnum() else json_text(request_id)[1:-1]}{place}"
