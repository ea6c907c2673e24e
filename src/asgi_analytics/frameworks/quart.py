"""Quart: its routes, and the exceptions that it answers, both told by its signals."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from asgi_analytics.instrumentation.requests.framework import Framework, Template
from asgi_analytics.instrumentation.requests.request import captured_request
from asgi_analytics.log import failure, log_problem

if TYPE_CHECKING:
    from asgi_analytics.instrumentation.types import Scope


class Quart(Framework):
    """The rule stands in Quart's own request, which is at hand when ``request_started`` is sent."""

    module = "quart.app"

    @classmethod
    def install_hooks(cls) -> None:
        """Listen to Quart's signals. The functions are coroutines: others would run in a thread."""
        signals = sys.modules["quart.signals"]
        signals.request_started.connect(_request_started, weak=False)
        signals.websocket_started.connect(_websocket_started, weak=False)
        signals.got_request_exception.connect(_got_exception, weak=False)
        signals.got_websocket_exception.connect(_got_exception, weak=False)
        signals.got_background_exception.connect(_got_background_exception, weak=False)

    def template(self, scope: Scope, state: Any) -> Template | None:
        """Return the rule that Quart has matched."""
        return Template(str(state)) if isinstance(state, _Rule) else None


class _Rule(str):
    """A rule of Quart's, left on the captured request."""


def _rule_of(native: Any) -> _Rule | None:
    """Return the rule of a request or WebSocket; for another method's, the rule that this would have matched."""
    rule = native.url_rule
    methods = getattr(native.routing_exception, "valid_methods", None)
    if rule is None and methods:
        adapter = sys.modules["quart"].current_app.create_url_adapter(native)
        rule = adapter.match(method=next(iter(methods)), return_rule=True)[0]
    return None if rule is None else _Rule(rule.rule)


async def _request_started(sender: Any, **_: Any) -> None:
    _take_rule("request")


async def _websocket_started(sender: Any, **_: Any) -> None:
    _take_rule("websocket")


def _take_rule(name: str) -> None:
    captured = captured_request()
    if captured is not None:
        try:
            captured.framework_state = _rule_of(getattr(sys.modules["quart"], name))
        except Exception as error:  # it would become the application's
            log_problem("quart", "the rule of a request is not known: %s", failure(error))


async def _got_exception(sender: Any, *, exception: BaseException, **_: Any) -> None:
    captured = captured_request()
    if captured is not None:
        captured.failed(exception)


async def _got_background_exception(sender: Any, *, exception: BaseException, **_: Any) -> None:
    captured = captured_request()
    if captured is not None and captured.plan.capture_errors:
        # It may come before the response has gone out, and is none of its business.
        captured.plan.intake.error(exception)
