"""What a test says about its user or session ends with it."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def every_test_outside_a_request(outside_a_request: None) -> None:
    """Use the fixture in every test here."""
