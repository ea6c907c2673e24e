"""Who asks: what the middleware's callables and authentication say, without believing that they are right."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any
from uuid import UUID

from asgi_analytics.encoding.ids import next_number
from asgi_analytics.encoding.records import counter_digits
from asgi_analytics.encoding.users import is_id
from asgi_analytics.log import failure, log_problem

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

# Where an application keeps the id of a user, most telling first; no address, no display name.
_USER_FIELDS = ("user_id", "id", "pk", "uuid", "identity", "sub", "username")
_MAX_REQUEST_ID = 200


def ask(
    function: Callable[[Any], object] | None, scope: MutableMapping[str, Any], name: str
) -> UUID | str | int | None:
    """Return what a middleware's callable says of the scope; None when it raises or returns no id."""
    if function is None:
        return None
    try:
        value = function(scope)
    except Exception as error:
        raised(error, function, name)
        return None
    if type(value) is UUID or value is None:  # most of them: a call less
        return value
    return acceptable_id(value, function, name)


def raised(error: Exception, function: object, name: str) -> None:
    """Log what a middleware's callable raised."""
    log_problem((name, function), "the middleware's %s raised %s", name, failure(error))


def acceptable_id(value: object, function: object, name: str) -> UUID | str | int | None:
    """Return what a middleware's callable returned; None where it is no id."""
    if is_id(value):
        return value
    log_problem((name, function), "the middleware's %s returned a %s: no id", name, type(value).__name__)
    return None


def identity_of(user: object) -> UUID | str | int | None:
    """Return the id of what authentication has left: an id, a mapping, or an object; None for nobody in particular."""
    if user is None or is_id(user):
        return user
    if isinstance(user, dict):
        values = (user.get(field) for field in _USER_FIELDS)
        return next((value for value in values if value != "" and is_id(value)), None)
    if getattr(user, "is_authenticated", True) is False:
        return None
    for field in _USER_FIELDS:
        try:
            value = getattr(user, field, None)
        except Exception:  # noqa: S112  # Starlette's BaseUser raises NotImplementedError where there is no identity
            continue
        if value != "" and is_id(value):
            return value
    return None


def sent_request_id(scope: MutableMapping[str, Any] | None) -> str | None:
    """Return the ``X-Request-ID`` that came with the request; None without one, or for one that nobody should store."""
    sent = None if scope is None else dict(scope.get("headers") or ()).get(b"x-request-id")
    return None if sent is None else acceptable_request_id(sent)


def acceptable_request_id(sent: bytes) -> str | None:
    """Return an id that came with a request as text; None for one that nobody should store."""
    if not 0 < len(sent) <= _MAX_REQUEST_ID:
        return None
    text = sent.decode("latin-1")
    return text if text.isascii() and text.isprintable() else None


# What ids of requests begin with in this process; the counter of the events' ids makes them unique.
request_ids = [secrets.token_hex(10)]


def _reseed() -> None:
    request_ids[0] = secrets.token_hex(10)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reseed)


def made_request_id(number: int | None = None) -> str:
    """Return an id for a request that came without one: 32 digits, unlike any other's.

    ``number`` is that of the request's event, where there is one already.
    """
    return request_ids[0] + counter_digits(next_number() if number is None else number)
