"""Who may see the dashboard, and who may change what it keeps."""

from __future__ import annotations

import inspect
import ipaddress
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, unquote, urlsplit

from starlette.datastructures import Headers

from asgi_analytics.errors import ConfigError
from asgi_analytics.web.problem import Problem
from asgi_analytics.web.tokens import Tokens

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
    from starlette.responses import Response
    from starlette.types import Scope

Authorize = str | Iterable[str] | Callable[["Scope"], "bool | Awaitable[bool]"]
"""A token, several of them, ``"loopback"``, or a callable on the scope of a request."""

COOKIE = "asgi_analytics_token"
SECONDS = 12 * 3600
"""How long a login lasts."""
FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")
WHO = (
    "authorize says who may see the dashboard: a token, a list of tokens, 'loopback', or a callable that takes the "
    "scope of a request"
)

Verdict = Literal["seen", "login", "refused"]


class Admission:
    """Tell of each request whether it may see the dashboard. Raises `ConfigError` unless it is said who may."""

    def __init__(self, authorize: Authorize | None, change_tokens: Iterable[str]) -> None:
        self._tokens: Tokens | None = None
        self._allows: Callable[[Scope], bool | Awaitable[bool]] = _is_loopback
        if callable(authorize):
            self._allows = authorize
        elif authorize != "loopback":
            if not authorize or not isinstance(authorize, Iterable):
                raise ConfigError(WHO)
            self._tokens = Tokens([authorize] if isinstance(authorize, str) else authorize)
            if not self._tokens:
                raise ConfigError(WHO)
        self._change_tokens = Tokens(change_tokens)

    @property
    def has_login(self) -> bool:
        """Whether a token is asked for."""
        return self._tokens is not None

    @property
    def has_changes(self) -> bool:
        """Whether anything can be changed at all."""
        return bool(self._change_tokens)

    async def judge(self, request: HTTPConnection) -> Verdict:
        """Return whether a request may see the dashboard, has to log in first, or may not."""
        if self._tokens is not None:
            return "seen" if _accepts(self._tokens, _token_of(request)) else "login"
        allowed = self._allows(request.scope)
        if inspect.isawaitable(allowed):
            allowed = await allowed
        return "seen" if allowed is True else "refused"

    def accepts(self, token: str) -> bool:
        """Tell whether one may log in with a token."""
        return self._tokens is not None and _accepts(self._tokens, token)

    def may_change(self, request: HTTPConnection, token: str = "") -> bool:
        """Tell whether a request may change what is kept, by the token of its login or another one."""
        return self.has_changes and any(_accepts(self._change_tokens, one) for one in (token, _token_of(request)))

    def keep(self, request: HTTPConnection, response: Response, token: str) -> None:
        """Keep the token of a login in the browser.

        Without a path: the browser takes that of the page, which is the mount as the browser knows it, whatever
        proxies make of it.
        """
        # A proxy that ends TLS need not say so, or need not be believed; the browser says where its page is from.
        secure = "https" in (request.url.scheme, urlsplit(request.headers.get("origin", "")).scheme)
        response.set_cookie(COOKIE, quote(token), SECONDS, path=None, secure=secure, httponly=True, samesite="strict")

    def forget(self, response: Response) -> None:
        """Let the browser forget the token."""
        response.set_cookie(COOKIE, "", 0, path=None, httponly=True, samesite="strict")


def require_same_origin(headers: Headers) -> None:
    """Raise `Problem` 403 unless a request that changes something comes from a page of this host."""
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    if site is not None:
        is_own = site == "same-origin"
    else:  # over plain HTTP, where browsers do not say it
        sender = urlsplit(origin or "")
        hosts = {headers.get("host"), headers.get("x-forwarded-host")}  # which no form of another page can set
        # Without the port, as proxies are often told to pass it on. Cookies do not tell ports apart either.
        is_own = origin is None or sender.netloc in hosts or sender.hostname in hosts - {None}
    if not is_own:
        raise Problem(
            403,
            "this form was not sent by a page of the dashboard; if it was, the proxy before this service has to pass "
            "the Host header on",
        )


def _token_of(request: HTTPConnection) -> str:
    """Return the token of a request: of its cookie, else of its header."""
    if kept := request.cookies.get(COOKIE):
        return unquote(kept)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _accepts(tokens: Tokens, token: str) -> bool:
    try:
        tokens.require(Headers(raw=[(b"authorization", b"Bearer " + token.encode())]))
    except (Problem, UnicodeError):
        return False
    return True


def _is_loopback(scope: Scope) -> bool:
    """Tell whether a request comes from this machine, by a name of it, and not through a proxy.

    The name, since a page anywhere may have a name of its own that leads to 127.0.0.1. No browser speaks HTTP/1.0, but
    nginx does, in the name of the service behind it and with nothing forwarded, unless it is told otherwise.
    """
    if scope.get("http_version") == "1.0":
        return False
    headers = Headers(scope=scope)
    host = urlsplit("//" + headers.get("host", "")).hostname or ""
    client = (scope.get("client") or ("",))[0]
    return _is_own(client) and _is_own(host) and not any(name in headers for name in FORWARDED)


def _is_own(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
