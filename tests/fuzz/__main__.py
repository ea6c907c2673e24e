"""Let atheris look for inputs that break a harness: ``python -m tests.fuzz statements -max_total_time=60``.

The harness is a module of this folder: ``check(data)`` raises AssertionError where a promise is broken, ``SEEDS`` and
``WORDS`` are where atheris begins. What stands after the name goes to libFuzzer, a folder that keeps its finds too. An
input that breaks something is written to the working folder, as ``crash-…``; give its path to run it alone.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import atheris


def main(name: str, *options: str) -> None:
    """Fuzz one harness, until it breaks or its time is over."""
    with atheris.instrument_imports(include=["asgi_analytics"]):
        harness: Any = importlib.import_module(f"tests.fuzz.{name}")
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder, "seeds")
        seeds.mkdir()
        for number, seed in enumerate(harness.SEEDS):
            (seeds / str(number)).write_bytes(seed)
        words = Path(folder, "words")
        words.write_text("".join(f'"{_escaped(word)}"\n' for word in harness.WORDS))
        # A hang is a find as well. One input alone is run without the seeds.
        alone = any(Path(option).is_file() for option in options)
        found = [option for option in options if not option.startswith("-")]
        arguments = [option for option in options if option.startswith("-")]
        arguments += found if alone else [f"-dict={words}", "-max_len=8192", "-timeout=10", *found, str(seeds)]
        atheris.Setup([f"tests.fuzz.{name}", *arguments], harness.check)
        atheris.Fuzz()


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main(*sys.argv[1:])
