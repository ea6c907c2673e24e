"""How much one visitor may send: so many events a minute, counted in memory and under a key of this process."""

from __future__ import annotations

import time
from hashlib import blake2b
from secrets import token_bytes

MOST_VISITORS = 10_000
"""How many visitors are counted at once. Beyond that counting begins anew."""

SECONDS = 60.0
"""How long a visitor's count lasts."""


class RateLimit:
    """Counts what each visitor sends. Neither address nor agent is kept, only their keyed hash, for a minute."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._key = token_bytes(32)
        self._counts: dict[bytes, tuple[float, int]] = {}

    def allows(self, address: str | None, agent: bytes) -> bool:
        """Count one more event of a visitor; False if that is more than is allowed."""
        now = time.monotonic()
        said = (address or "").encode("utf-8", "replace") + b"\0" + agent
        visitor = blake2b(said, digest_size=16, key=self._key).digest()
        began, count = self._counts.get(visitor, (now, 0))
        if now - began >= SECONDS:
            began, count = now, 0
        if count >= self.most:
            return False
        if len(self._counts) >= MOST_VISITORS and visitor not in self._counts:
            self._forget(now)
        self._counts[visitor] = (began, count + 1)
        return True

    def _forget(self, now: float) -> None:
        self._counts = {one: state for one, state in self._counts.items() if now - state[0] < SECONDS}
        if len(self._counts) >= MOST_VISITORS:
            self._counts.clear()
