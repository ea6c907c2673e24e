"""One log line per problem, not one per event."""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict
from pathlib import PurePath

from asgi_analytics.errors import AnalyticsError

log = logging.getLogger("asgi_analytics")

QUIET_SECONDS = 60.0
"""How long the same problem is not logged again."""

LONGEST = 2_000
"""Characters of a text in a log line."""

_MOST_PROBLEMS = 200

_last: OrderedDict[object, tuple[float, int]] = OrderedDict()


def log_problem(key: object, message: str, *args: object, level: int = logging.WARNING) -> None:
    """Log a problem unless it was logged less than `QUIET_SECONDS` ago; the next line says how often it recurred."""
    _, unsaid = _last.get(key, (0.0, 0))
    if is_due(key):
        args = tuple(arg if isinstance(arg, int | float) else one_line(arg) for arg in args)
        if unsaid:
            message, args = message + " (repeated meanwhile: %d)", (*args, unsaid)
        # The log may be written later, elsewhere, and not know what to do with an error that cannot be shown.
        log.log(level, message, *(_shown(arg) if isinstance(arg, BaseException) else arg for arg in args))


def _shown(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return f"<{type(error).__name__}, which cannot be shown>"


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


def one_line(text: object) -> str:
    """Return a text on one line, as it may stand in a log or on a terminal, wherever it comes from."""
    said = " ".join(str(text).split())
    if not said.isprintable():  # what would move the cursor or change colours is written out: \\x1b
        said = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in said)
    return said if len(said) <= LONGEST else said[: LONGEST - 1] + "…"


def failure(error: BaseException) -> str:
    """Return what is logged of an error: the text of one of ours, else which it is and where it was raised.

    The text of any other may quote an event, a statement or a password: ``int("hunter2")`` does.
    """
    if isinstance(error, AnalyticsError):
        return str(error)
    place = error.__traceback__
    if place is None:
        return type(error).__name__
    while place.tb_next is not None:
        place = place.tb_next
    file = PurePath(place.tb_frame.f_code.co_filename).name
    return f"{type(error).__name__} ({file}, line {place.tb_lineno})"
