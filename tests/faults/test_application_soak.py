"""The soak: it sees what grows, and a short one is flat. ``tox -e soak`` runs the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.soak import Sample, growth

FLAT = [Sample(float(at), 6, 30 + at % 3, 4 + at % 2, 80.0 + at % 2) for at in range(90)]


def test_what_stays_the_same_is_flat() -> None:
    assert growth(FLAT) == []


@pytest.mark.parametrize("name", ["threads", "descriptors", "connections", "mebibytes"])
def test_what_grows_is_named(name: str) -> None:
    rising = [sample._replace(**{name: getattr(sample, name) + at // 5}) for at, sample in enumerate(FLAT)]
    [grown] = growth(rising)
    assert grown.startswith(name)


def test_too_little_to_judge_is_not_called_flat() -> None:
    assert growth(FLAT[:2]) != []


@pytest.mark.long
@pytest.mark.parametrize("flavour", ["postgresql", "timescaledb"])
def test_two_minutes_under_load_and_cuts_are_flat(flavour: str) -> None:
    command = [sys.executable, "-m", "tests.faults.soak", "--seconds", "120", "--database", flavour]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    if "invalid choice" in done.stderr:
        pytest.skip(f"{flavour} is not installed")
    assert done.returncode == 0, done.stdout + done.stderr
