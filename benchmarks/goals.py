"""What is to be reached, said in one form, so that `python -m benchmarks` can put all of it into one table."""

from __future__ import annotations

import re
from typing import NamedTuple

SAID = re.compile(r"goal: (?P<what>.+): (?P<measured>-?[\d.]+) \((?P<bound>at (?:most|least) [\d.]+)\), (?P<held>\w+)")


class Goal(NamedTuple):
    """One goal of one run."""

    what: str
    measured: str
    bound: str
    held: str


def at_most(what: str, measured: float, bound: float) -> None:
    """Print a goal that holds up to a bound."""
    _say(what, measured, f"at most {bound:g}", measured <= bound)


def at_least(what: str, measured: float, bound: float) -> None:
    """Print a goal that holds from a bound on."""
    _say(what, measured, f"at least {bound:g}", measured >= bound)


def _say(what: str, measured: float, bound: str, holds: bool) -> None:
    print(f"goal: {what}: {measured:.2f} ({bound}), {'holds' if holds else 'missed'}", flush=True)


def goals_in(output: str) -> list[Goal]:
    """Return the goals that a benchmark has printed."""
    return [Goal(*match.groups()) for match in SAID.finditer(output)]
