"""Django under ASGI: its routes, its user, and the exceptions that it answers."""

from __future__ import annotations

import sys
from functools import wraps
from typing import TYPE_CHECKING, Any

from asgi_analytics.instrumentation.requests.framework import Framework, Template
from asgi_analytics.instrumentation.requests.request import REQUEST_KEY, CapturedRequest, captured_request

if TYPE_CHECKING:
    from asgi_analytics.instrumentation.types import Scope


class Django(Framework):
    """Route and user stand in Django's request, which is not in the scope; exceptions are told by a signal."""

    module = "django.core.handlers.asgi"
    knows_users = True

    @classmethod
    def install_hooks(cls) -> None:
        """Take note of each request that Django makes from a scope, and listen to its signal."""
        handler = sys.modules["django.core.handlers.asgi"].ASGIHandler
        create_request = handler.create_request

        @wraps(create_request)
        def create(self: Any, scope: Scope, body_file: Any) -> Any:
            made = create_request(self, scope, body_file)
            captured = scope.get(REQUEST_KEY)
            if isinstance(captured, CapturedRequest):
                captured.framework_state = made[0]
            return made

        handler.create_request = create
        signals = sys.modules["django.core.signals"]
        signals.got_request_exception.connect(_got_request_exception, weak=False, dispatch_uid="asgi_analytics")

    def template(self, scope: Scope, state: Any) -> Template | None:
        """Return the route that Django has resolved, with the slash that Django leaves out.

        A regular expression loses its first ``^``, as all do that Django includes under another route.
        """
        match = getattr(state, "resolver_match", None)
        return None if match is None else Template("/" + match.route.removeprefix("^"))

    def user(self, scope: Scope, state: Any) -> object:
        """Return the user where the application has asked for it; asking would be a query."""
        known = getattr(state, "__dict__", {})
        return known.get("_cached_user") or known.get("_acached_user")


def _got_request_exception(**_: Any) -> None:
    exc = sys.exc_info()[1]
    request = captured_request()
    if exc is not None and request is not None:
        request.failed(exc)
