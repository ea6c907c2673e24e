"""Starlette's ``BaseHTTPMiddleware``, which completes a response that the application below it has broken off."""

from __future__ import annotations

import copy
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from asgi_analytics.instrumentation.requests.framework import Framework
from asgi_analytics.instrumentation.requests.request import REQUEST_KEY, CapturedRequest

if TYPE_CHECKING:
    from asgi_analytics.instrumentation.types import ASGIApp, Message, Receive, Scope, Send


class StarletteBase(Framework):
    """Tells a response that broke off from a background task that failed: above the layer they look the same."""

    module = "starlette.middleware.base"

    @classmethod
    def install_hooks(cls) -> None:
        """Watch what runs below each ``BaseHTTPMiddleware``."""
        base = sys.modules["starlette.middleware.base"].BaseHTTPMiddleware
        run_layer = base.__call__

        async def run(self: Any, scope: Any, receive: Any, send: Any) -> Any:
            request = scope.get(REQUEST_KEY)
            if isinstance(request, CapturedRequest):
                app, self = self.app, copy.copy(self)
                self.app = partial(_watched, app, request)
            return await run_layer(self, scope, receive, send)

        base.__call__ = run


async def _watched(app: ASGIApp, request: CapturedRequest, scope: Scope, receive: Receive, send: Send) -> None:
    """Run an application, and take note if it raises in the middle of its response."""
    has_begun = is_complete = False

    async def watched_send(message: Message) -> None:
        nonlocal has_begun, is_complete
        kind = message["type"]
        has_begun = has_begun or kind == "http.response.start"
        if kind == "http.response.pathsend" or (kind == "http.response.body" and not message.get("more_body", False)):
            is_complete = True
        await send(message)

    try:
        await app(scope, receive, watched_send)
    except Exception as exc:
        if has_begun and not is_complete:
            request.broken = exc
        raise
