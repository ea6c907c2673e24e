"""Which exceptions were reported already: nested layers see the same one, and it is told once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_analytics.exceptions import leaves

if TYPE_CHECKING:
    from asgi_analytics.context import RequestContext

_MARK = "__asgi_analytics__"


def is_news(exc: BaseException, client: object, request: RequestContext | None) -> bool:
    """Take note of an exception; False when it, or all that it groups, was reported before.

    A request remembers what was reported in it: an exception object that a module raises again and again is reported
    for each request. Outside of one the exception itself bears the mark.
    """
    new = False
    for one in {id(one): one for one in (exc, *leaves(exc))}.values():
        if request is None:
            marks: set[int] = one.__dict__.setdefault(_MARK, set())
            unknown = id(client) not in marks
            marks.add(id(client))
        else:
            seen = request.seen_errors
            unknown = seen is None or all(other is not one for other in seen)
            if unknown:
                request.seen_errors = [*(seen or ())[-8:], one]
                request.ordinary = False
        new = new or (unknown and not isinstance(one, BaseExceptionGroup))
    return new
