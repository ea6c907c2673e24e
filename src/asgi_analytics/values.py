"""Read the text of a variable or an option: sizes, durations, counts, ports, times, switches and tokens.

Each function takes a text and returns its value. It raises `ValueError` that says what was expected, and never repeats
the text, which may hold a secret. The caller adds the name of the variable or the option.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

_UNITS = {"": 1, "kib": KIB, "mib": MIB, "gib": GIB}

TIME = "ISO 8601, such as 2026-11-20 or 2026-11-20T12:00+01:00; UTC if it names no zone"
"""How a time is written, for help texts."""


def size(text: str) -> int:
    """Return a number of bytes, at least 1: ``65536``, ``64KiB``, ``5 MiB`` or ``1GiB``."""
    match = re.fullmatch(r"\s*([0-9]{1,15})\s*(|kib|mib|gib)\s*", text.lower())
    if match is None or int(match[1]) < 1:
        raise ValueError("expected a size: a number of bytes from 1, or a number with KiB, MiB or GiB")
    return int(match[1]) * _UNITS[match[2]]


def count(text: str) -> int:
    """Return a whole number, at least 1."""
    if re.fullmatch(r"\s*[0-9]{1,15}\s*", text) is None or int(text) < 1:
        raise ValueError("expected a whole number from 1")
    return int(text)


def seconds(text: str) -> float:
    """Return a number of seconds, at least 0."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise ValueError("expected a number of seconds from 0, such as 0.5 or 10")
    return value


def positive_seconds(text: str) -> float:
    """Return a number of seconds above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise ValueError("expected a number of seconds above 0, such as 0.5 or 10")
    return value


def port(text: str) -> int:
    """Return a TCP port; 0 stands for any free one."""
    if re.fullmatch(r"\s*[0-9]{1,5}\s*", text) is None or int(text) > 65535:
        raise ValueError("expected a port, 0 to 65535")
    return int(text)


def time(text: str) -> datetime:
    """Return an aware time; one without a zone is taken as UTC."""
    try:
        value = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"expected a time in {TIME}") from None
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def flag(text: str) -> bool:
    """Return True for ``1``, ``true``, ``yes`` and ``on``, False for ``0``, ``false``, ``no`` and ``off``."""
    lowered = text.strip().lower()
    if lowered in ("1", "true", "yes", "on"):
        return True
    if lowered in ("0", "false", "no", "off"):
        return False
    raise ValueError("expected true or false")


def token(text: str) -> str:
    """Return a bearer token as it is: printable ASCII without spaces, since it has to stand in a header."""
    if not isinstance(text, str) or not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("expected a token of printable ASCII characters without spaces")
    return text


def tokens(text: str) -> list[str]:
    """Return the bearer tokens of a list separated by commas. Empty entries are skipped; at least one must be left."""
    found = [token(part.strip()) for part in text.split(",") if part.strip()]
    if not found:
        raise ValueError("expected at least one token; several are separated by commas")
    return found


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
