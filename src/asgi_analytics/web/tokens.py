"""Bearer tokens: several are accepted at once, so that one can be replaced without a gap."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256
from typing import TYPE_CHECKING

from asgi_analytics import values
from asgi_analytics.errors import ConfigError
from asgi_analytics.web.problem import Problem

if TYPE_CHECKING:
    from starlette.datastructures import Headers

_REALM = 'Bearer realm="asgi-analytics"'


class Tokens:
    """The accepted tokens, kept as digests only. Without any, every request is accepted.

    Raises `ConfigError` for an empty token, or one that cannot stand in a header.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        if isinstance(tokens, str):
            raise ConfigError("tokens is one str: give a list of them, tokens=[token]")
        if not isinstance(tokens, Iterable):
            raise ConfigError(f"tokens is {tokens!r}: give a list of them, or an empty one to accept every request")
        try:
            self._digests = [sha256(values.token(token).encode()).digest() for token in tokens]
        except ValueError as error:
            raise ConfigError(f"tokens: {error}") from None

    def __bool__(self) -> bool:
        """Tell whether a token is required."""
        return bool(self._digests)

    def require(self, headers: Headers) -> None:
        """Return if the headers hold an accepted token, or none is required; raises `Problem` 401.

        A wrong token takes the same time, however much of it is right and whichever accepted one it resembles.
        """
        if not self._digests:
            return
        given = [value for name, value in headers.raw if name.lower() == b"authorization"]
        scheme, _, token = (given[0] if len(given) == 1 else b"").partition(b" ")
        if scheme.lower() != b"bearer" or not token.strip():
            raise Problem(401, "send a token: Authorization: Bearer <token>", {"WWW-Authenticate": _REALM})
        digest = sha256(token.strip()).digest()
        if not any([hmac.compare_digest(digest, one) for one in self._digests]):  # noqa: C419  # compare with all
            raise Problem(401, "the token is not accepted", {"WWW-Authenticate": f'{_REALM}, error="invalid_token"'})
