"""What an API does is what its description says: schemathesis tries to find a difference."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

schemathesis: Any = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
from hypothesis import HealthCheck, given, settings  # noqa: E402  # after the line that may skip
from hypothesis.errors import Unsatisfiable  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402


def try_all(schema: Any, check: Callable[[Any], None], examples: int) -> set[str]:
    """Check so many right and so many wrong requests of each operation, and return the paths that were tried.

    They are the same ones in each run: to make one may take schemathesis ten seconds, by chance.
    """
    few = settings(max_examples=examples, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    tried = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in GenerationMode:
            # Without a parameter there is nothing that could be wrong.
            with contextlib.suppress(Unsatisfiable):
                requests: Any = given(operation.as_strategy(generation_mode=mode))
                few(requests(check))()
                tried.add(operation.path)
    return tried
