"""One log line a problem, not one an event."""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict

log = logging.getLogger("asgi_analytics")

QUIET_SECONDS = 60.0
"""How long the same problem is not logged again."""

_MOST_PROBLEMS = 200

_last: OrderedDict[object, tuple[float, int]] = OrderedDict()


def log_problem(key: object, message: str, *args: object, level: int = logging.WARNING) -> None:
    """Log a problem unless it was logged less than `QUIET_SECONDS` ago; the next line says how often it came back."""
    _, unsaid = _last.get(key, (0.0, 0))
    if is_due(key):
        if unsaid:
            message, args = message + " (and %d times more before)", (*args, unsaid)
        # The log may be written later, elsewhere, and not know what to do with an error that cannot be shown.
        log.log(level, message, *(_shown(arg) if isinstance(arg, BaseException) else arg for arg in args))


def _shown(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return f"a {type(error).__name__} that cannot be shown"


def is_due(key: object) -> bool:
    """Tell whether a problem is to be logged now, and note that it came up; the caller logs it then."""
    now = time.monotonic()
    then, unsaid = _last.pop(key, (-math.inf, 0))
    quiet = now - then < QUIET_SECONDS
    _last[key] = (then, unsaid + 1) if quiet else (now, 0)
    while len(_last) > _MOST_PROBLEMS:
        _last.popitem(last=False)
    return not quiet


def solved(key: object) -> None:
    """Forget a problem, so that it is logged at once when it comes back."""
    _last.pop(key, None)
