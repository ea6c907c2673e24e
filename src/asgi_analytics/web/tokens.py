"""Who may send: bearer tokens, several at once, so that one can be replaced without a gap."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256

from asgi_analytics.errors import ConfigError
from asgi_analytics.web.problem import Problem

_REALM = 'Bearer realm="asgi-analytics"'


class Tokens:
    """The accepted tokens, kept as digests only. Without any, everybody may send.

    Raises `ConfigError` for an empty token, or one that could not stand in a header.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        if isinstance(tokens, str):
            raise ConfigError("tokens is one str: give a list of them, tokens=[token]")
        if not isinstance(tokens, Iterable):
            raise ConfigError(f"tokens is {tokens!r}: give a list of them, or an empty one to let everybody send")
        self._digests: list[bytes] = []
        for token in tokens:
            if (
                not isinstance(token, str)
                or not token
                or not token.isascii()
                or not token.isprintable()
                or " " in token
            ):
                raise ConfigError("a token is empty or holds spaces or characters beyond ASCII: use a long random one")
            self._digests.append(sha256(token.encode()).digest())

    def __bool__(self) -> bool:
        """Tell whether a token is demanded."""
        return bool(self._digests)

    def demand(self, authorization: bytes | None) -> None:
        """Return when the header holds an accepted token, or none is demanded; raises `Problem` 401.

        Takes the same time for a wrong token whatever is right in it, and whichever of the accepted ones it is.
        """
        if not self._digests:
            return
        scheme, _, token = (authorization or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not token.strip():
            raise Problem(401, "send a token: Authorization: Bearer <token>", {"WWW-Authenticate": _REALM})
        given = sha256(token.strip()).digest()
        if not any([hmac.compare_digest(given, digest) for digest in self._digests]):  # noqa: C419  # compare with all
            raise Problem(401, "the token is not accepted", {"WWW-Authenticate": f'{_REALM}, error="invalid_token"'})
