"""The seam to one framework: what its routes are called, who its user is, and which exceptions it keeps to itself."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from asgi_analytics.context import current
from asgi_analytics.log import failure, log_problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from asgi_analytics.instrumentation.requests.identified import IdentifiedRequest
    from asgi_analytics.instrumentation.requests.request import CapturedRequest


class Template(NamedTuple):
    """A route as the framework writes it."""

    text: str
    """The template, ``/tasks/{id}``."""
    prefix: str | None = None
    """Where the route is a mount of an application that routes by itself: what stands before that one's templates."""

    def below(self, mount: Template) -> Template:
        """Return the whole of a template that was found below a mount."""
        start = mount.prefix or ""
        return Template(start + self.text, None if self.prefix is None else start + self.prefix)


class Framework:
    """What one framework needs beyond plain ASGI. A subclass in a file of ``frameworks/`` is found by itself.

    ``module`` names what the application must have imported for this framework to be there; its own file imports
    nothing of it before. Each middleware has an instance of its own, for what it remembers of its application.
    """

    module: ClassVar[str]
    knows_users: ClassVar[bool] = False
    """Whether `user` may know what ``scope["user"]`` does not."""
    _connected: ClassVar[bool] = False

    def __init__(self) -> None:
        self.alone: dict[int, tuple[object, str]] = {}
        """What needs no asking: the templates of routes that have one only unless they are mounted, by the id of what
        stands in ``scope["route"]``. That object stands beside, so that no other can have its id."""

    @classmethod
    def found(cls, app: object) -> Self | None:
        """Return an instance where the application uses this framework; its hooks are set the first time.

        ``app`` is what the middleware stands around.
        """
        if cls.module not in sys.modules:
            return None
        if not cls._connected:
            try:
                if cls.is_inside(app):
                    cls._connected = True
                    cls.connect()
            except Exception as error:  # a release we do not know: requests are captured all the same
                log_problem((cls, "connect"), "%s has other insides than expected: %s", cls.module, failure(error))
        return cls()

    @classmethod
    def is_inside(cls, app: object) -> bool:
        """Tell whether the middleware around ``app`` may stand inside of the framework, and so needs its hooks."""
        return True

    @classmethod
    def connect(cls) -> None:
        """Set the hooks that the framework needs; called once a process."""

    def template(self, scope: MutableMapping[str, Any], request: IdentifiedRequest) -> Template | None:
        """Return the route that was matched; None when this framework has matched none."""
        return None

    def original(self, exc: BaseException) -> BaseException:
        """Return the application's exception, where the framework has put one of its own around it."""
        return exc

    def user(self, scope: MutableMapping[str, Any], request: IdentifiedRequest) -> object:
        """Return who asks, where the framework keeps that outside of ``scope["user"]``; costs no I/O."""
        return None


def captured_request() -> CapturedRequest | None:
    """Return the request that is being captured here, for a hook; None outside of one."""
    from asgi_analytics.instrumentation.requests.request import CapturedRequest

    request = current.get()
    return request if isinstance(request, CapturedRequest) else None


def as_coroutine_function(function: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Return a method that returns coroutines as one that servers take for ``async def``, and so for ASGI 3.

    A call with anything but a scope, receive and send raises at once: so uvicorn tells applications from factories.
    """
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(function)

    async def run(self: Any, scope: Any, receive: Any, send: Any) -> None:
        await function(self, scope, receive, send)

    return run
