"""The seam to one framework: what its routes are called, who its user is, and which exceptions it keeps to itself."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from asgi_analytics.log import failure, log_problem

if TYPE_CHECKING:
    from asgi_analytics.instrumentation.types import Scope


class Template(NamedTuple):
    """A route as the framework writes it."""

    text: str
    """The template, ``/tasks/{id}``."""
    prefix: str | None = None
    """If the route is a mount of an application that routes by itself: what stands before that one's templates."""

    def below(self, mount: Template) -> Template:
        """Return the whole of a template that was found below a mount."""
        start = mount.prefix or ""
        return Template(start + self.text, None if self.prefix is None else start + self.prefix)


class Framework:
    """What one framework needs beyond plain ASGI. A subclass in a file of ``frameworks/`` is found by itself.

    ``module`` names what the application must have imported for this framework to be there; its own file imports
    nothing of it before. Each middleware has an instance of its own, for what it remembers of its application.

    A hook that the framework calls during a request gets at it by `request.captured_request`, and may leave on its
    ``framework_state`` what `template` and `user` need.
    """

    module: ClassVar[str]
    knows_users: ClassVar[bool] = False
    """Whether `user` may know what ``scope["user"]`` does not."""
    _is_hooked: ClassVar[bool] = False

    @classmethod
    def detect(cls, app: object) -> Self | None:
        """Return an instance if the application uses this framework; its hooks are installed the first time.

        ``app`` is what the middleware wraps.
        """
        if cls.module not in sys.modules:
            return None
        if not cls._is_hooked:
            try:
                if cls.needs_hooks(app):
                    cls._is_hooked = True
                    cls.install_hooks()
            except Exception as error:  # a release that is not known here: requests are captured all the same
                log_problem(
                    (cls, "hooks"), "unsupported version of %s: hooks not installed (%s)", cls.module, failure(error)
                )
        return cls()

    @classmethod
    def needs_hooks(cls, app: object) -> bool:
        """Tell whether the middleware around ``app`` may stand inside of the framework."""
        return True

    @classmethod
    def install_hooks(cls) -> None:
        """Install the hooks that the framework needs; called once per process."""

    def template(self, scope: Scope, state: Any) -> Template | None:
        """Return the route that was matched; None if this framework has matched none."""
        return None

    def unwrap(self, exc: BaseException) -> BaseException:
        """Return the application's exception, if the framework has wrapped it in one of its own."""
        return exc

    def user(self, scope: Scope, state: Any) -> object:
        """Return who asks, if the framework keeps that outside of ``scope["user"]``; costs no I/O."""
        return None
