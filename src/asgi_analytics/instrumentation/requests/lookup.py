"""Who asks, in which session, and for which endpoint: what the middleware's callables, authentication and routers say.

None of it is believed to be right: what raises, or is not an id, is logged and counts as not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from asgi_analytics.encoding.users import is_id
from asgi_analytics.log import failure, log_problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from asgi_analytics.instrumentation.requests.framework import Template
    from asgi_analytics.instrumentation.requests.plan import CapturePlan
    from asgi_analytics.instrumentation.types import Scope

# Where an application keeps the id of a user, most telling first; not an address, and not a display name.
_USER_FIELDS = ("user_id", "id", "pk", "uuid", "identity", "sub", "username")
REQUEST_ID = b"x-request-id"
_MAX_REQUEST_ID = 200


def user_of(plan: CapturePlan, scope: Scope, state: Any) -> UUID | str | int | None:
    """Return who asks: by the middleware's callable, else by ``scope["user"]``, else by the framework.

    ``state`` is what the framework's hook has left on the request.
    """
    user = None if plan.user_id is None else _call(plan.user_id, scope, "user_id")
    if user is None and (plan.frameworks_know_users or "user" in scope):
        try:
            user = identity_of(scope.get("user"))
            for framework in plan.frameworks:
                if user is None:
                    user = identity_of(framework.user(scope, state))
        except Exception as error:
            log_problem("user", "the user of a request is not known: %s", failure(error))
    return user


def session_of(plan: CapturePlan, scope: Scope) -> str | None:
    """Return the session that the middleware's callable names."""
    session_id = None if plan.session_id is None else _call(plan.session_id, scope, "session_id")
    return session_id if session_id is None or type(session_id) is str else str(session_id)


def endpoint_of(plan: CapturePlan, scope: Scope, state: Any) -> str | None:
    """Return the endpoint that the middleware's callable names, else the template of the route, if any has matched."""
    if plan.endpoint is not None:
        try:
            if (named := plan.endpoint(scope)) is not None:
                return str(named)
        except Exception as error:  # the framework may still know it
            log_problem(("endpoint", plan.endpoint), "the middleware's endpoint raised %s", failure(error))
    route: Template | None = None
    mount: Template | None = None
    for framework in plan.frameworks:
        try:
            found = framework.template(scope, state)
        except Exception as error:
            log_problem(("template", framework.module), "the endpoint of a request is not known: %s", failure(error))
            continue
        if found is None:
            continue
        if found.prefix is None:
            route = route or found
        else:
            mount = found if mount is None else found.below(mount)
    if route is None:
        return None if mount is None else mount.text
    return route.text if mount is None else route.below(mount).text


def request_id_in(scope: Scope) -> str | None:
    """Return the ``X-Request-ID`` that came with the request, if any that can be stored."""
    for name, value in scope.get("headers") or ():
        if name == REQUEST_ID:
            return storable_request_id(value)
    return None


def storable_request_id(value: bytes) -> str | None:
    """Return what the header ``X-Request-ID`` says, if it can be stored."""
    if not 0 < len(value) <= _MAX_REQUEST_ID:
        return None
    text = value.decode("latin-1")
    return text if text.isascii() and text.isprintable() else None


def identity_of(user: object) -> UUID | str | int | None:
    """Return the id of what authentication has left: an id, a mapping, or an object; None if nobody in particular."""
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
        except Exception:  # noqa: S112  # Starlette's BaseUser raises NotImplementedError for what it does not have
            continue
        if value != "" and is_id(value):
            return value
    return None


def _call(function: Callable[[Scope], object], scope: Scope, name: str) -> UUID | str | int | None:
    """Return what a middleware's callable says of the scope; None if it raises or returns anything but an id."""
    try:
        value = function(scope)
    except Exception as error:
        log_problem((name, function), "the middleware's %s raised %s", name, failure(error))
        return None
    if value is None or type(value) is UUID or is_id(value):
        return value
    log_problem((name, function), "the middleware's %s returned a %s, not an id", name, type(value).__name__)
    return None
