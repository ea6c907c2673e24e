"""Makes the Python blocks of README and docs tests: ``pytest README.md docs``."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser


def _setup(namespace: dict[str, Any]) -> None:
    """Give the blocks what they speak of: a database, an application, a task and a user."""
    from starlette.applications import Starlette

    os.environ["DATABASE_URL"] = "memory://docs"
    namespace["__name__"] = "__main__"  # as in a file that is run: frameworks look up where their handlers are from
    namespace.update(app=Starlette(), task=SimpleNamespace(id=uuid4()), user=SimpleNamespace(id=uuid4()))


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/**/*.md"],
    setup=_setup,
).pytest()
