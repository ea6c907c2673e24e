"""Makes the Python blocks of README and docs tests: ``pytest README.md docs``."""

from __future__ import annotations

import os
from typing import Any

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser


def _setup(namespace: dict[str, Any]) -> None:
    # The blocks speak of a DATABASE_URL; nothing is tracked through it, so nothing connects.
    os.environ.setdefault("DATABASE_URL", "postgresql://reader@localhost/docs")


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/**/*.md"],
    setup=_setup,
).pytest()
