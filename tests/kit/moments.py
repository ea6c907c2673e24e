"""Random moments of a long range, on some of its days only: each day that has events is to be filled and looked at."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from random import Random

DAY = timedelta(days=1)
MOST_DAYS = 14


def moments(random: Random, since: datetime, until: datetime) -> Callable[[], datetime]:
    """Return what returns random moments of a range: of 14 days of a longer one, the first and the last among them."""
    days = (until - since) // DAY
    if days <= MOST_DAYS:
        return lambda: since + random.random() * (until - since)
    some = [since + number * DAY for number in random.sample(range(1, days - 1), MOST_DAYS - 2)]
    begin = [since, until - DAY, *some]
    return lambda: random.choice(begin) + random.random() * DAY
