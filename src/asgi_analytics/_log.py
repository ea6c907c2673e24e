"""One log line a problem, not one an event."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict

log = logging.getLogger("asgi_analytics")

QUIET_SECONDS = 60.0
"""How long the same problem is not logged again."""

_MOST_PROBLEMS = 200

_last: OrderedDict[object, tuple[float, int]] = OrderedDict()


def log_problem(key: object, message: str, *args: object, level: int = logging.WARNING) -> bool:
    """Log a problem unless it was logged less than `QUIET_SECONDS` ago; the next line says how often it came back."""
    now = time.monotonic()
    then, unsaid = _last.pop(key, (-QUIET_SECONDS, 0))
    quiet = now - then < QUIET_SECONDS
    _last[key] = (then, unsaid + 1) if quiet else (now, 0)
    if len(_last) > _MOST_PROBLEMS:
        _last.popitem(last=False)
    if quiet:
        return False
    if unsaid:
        message, args = message + " (and %d times more before)", (*args, unsaid)
    log.log(level, message, *args)
    return True


def solved(key: object) -> None:
    """Forget a problem, so that it is logged at once when it comes back."""
    _last.pop(key, None)
