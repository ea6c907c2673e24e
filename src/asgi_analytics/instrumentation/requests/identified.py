"""Whose request it is and which route it takes, as far as that can be told when somebody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgi_analytics.context import RequestContext
from asgi_analytics.instrumentation.requests.identity import ask, identity_of, is_id, made_request_id, sent_request_id
from asgi_analytics.log import failure, log_problem
from asgi_analytics.pipeline.fields import UNSAID

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from uuid import UUID

    from asgi_analytics.instrumentation.requests.framework import Template
    from asgi_analytics.instrumentation.requests.plan import CaptureSettings

    Scope = MutableMapping[str, Any]


class IdentifiedRequest(RequestContext):
    """A request of which user, session, id and endpoint can be asked whenever an event is tracked.

    They are looked up anew each time, since authentication and routing may come late. When the request has ended
    ``scope`` is None, and what its event says of them stands where stood what was said.
    """

    __slots__ = ()

    settings: CaptureSettings
    scope: Any
    # The number of its event, of which the id of a request is made that came without one.
    _number: int | None
    # The framework's own request object, or what its hook has learnt, where one has left it here.
    native: Any
    # The same request as another client's middleware captures it.
    outer: IdentifiedRequest | None

    @property
    def user_id(self) -> UUID | str | int | None:
        """Who asks: what ``set_user`` said, else the middleware's callable, else ``scope["user"]``."""
        user_id = self._user_id
        if user_id is not UNSAID:
            return user_id  # type: ignore[no-any-return]
        scope = self.scope
        if scope is None or not (self.settings.knows_users or "user" in scope):
            return None
        return self._find_user(scope)

    @user_id.setter
    def user_id(self, value: UUID | str | int | None) -> None:
        if value is not None and not is_id(value):
            log_problem("set_user", "set_user() takes a UUID, a str or an int, not a %s", type(value).__name__)
            return
        self._user_id = value
        self.ordinary = False
        if self.outer is not None:
            self.outer.user_id = value

    def _find_user(self, scope: Scope) -> UUID | str | int | None:
        settings = self.settings
        self._user_id = None  # meanwhile: a callable may track events itself
        try:
            user = None if settings.user_id is None else ask(settings.user_id, scope, "user_id")
            if user is None and (settings.frameworks_know_users or "user" in scope):
                user = identity_of(scope.get("user"))
                for framework in settings.frameworks:
                    if user is None:
                        user = identity_of(framework.user(scope, self))
            return user
        except Exception as error:
            log_problem("user", "the user of a request is not known: %s", failure(error))
            return None
        finally:
            self._user_id = UNSAID

    @property
    def session_id(self) -> str | None:
        """The session: what ``set_session`` said, else the middleware's callable."""
        session_id = self._session_id
        if session_id is UNSAID:
            if self.scope is None or self.settings.session_id is None:
                return None
            self._session_id = None
            try:
                session_id = ask(self.settings.session_id, self.scope, "session_id")
            finally:
                self._session_id = UNSAID
        return session_id if session_id is None or type(session_id) is str else str(session_id)

    @session_id.setter
    def session_id(self, value: str | None) -> None:
        self._session_id = value
        self.ordinary = False
        if self.outer is not None:
            self.outer.session_id = value

    @property
    def request_id(self) -> str | None:
        """The ``X-Request-ID`` of the request, else one that is made for it."""
        request_id = self._request_id
        if request_id is None:
            request_id = self._request_id = sent_request_id(self.scope) or made_request_id(self._number)
        return request_id

    @request_id.setter
    def request_id(self, value: str | None) -> None:
        self._request_id = value

    @property
    def endpoint(self) -> str | None:
        """The route template, as far as it is known now; a decorator's name for it wins."""
        if self._endpoint is not None or self.scope is None:
            return self._endpoint
        return self._find_endpoint(self.scope)

    @endpoint.setter
    def endpoint(self, value: str | None) -> None:
        self._endpoint = value
        self.ordinary = False
        if self.outer is not None:
            self.outer.endpoint = value

    def _find_endpoint(self, scope: Scope) -> str | None:
        settings = self.settings
        try:
            if (only := settings.only_framework) is not None:
                found = only.template(scope, self)
                return None if found is None else found.text
            # One that raises is as one that does not know: the framework may.
            if settings.endpoint is not None and (named := ask(settings.endpoint, scope, "endpoint")) is not None:
                return str(named)
            route: Template | None = None
            mount: Template | None = None
            for framework in settings.frameworks:
                found = framework.template(scope, self)
                if found is None:
                    continue
                if found.prefix is None:
                    route = route or found
                else:
                    mount = found if mount is None else found.below(mount)
            if route is None:
                return None if mount is None else mount.text
            return route.text if mount is None else route.below(mount).text
        except Exception as error:
            log_problem("endpoint", "the endpoint of a request is not known: %s", failure(error))
            return None

    def leave(self, native: Any) -> None:
        """Keep a framework's own request object, or what its hook has learnt, until the end."""
        self.native = native
        self.ordinary = False
