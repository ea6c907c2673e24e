"""An application behind a real server, in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.kit.databases import free_port
from tests.kit.fakes import until

UVICORN = ("uvicorn", "--log-level", "warning")
GUNICORN = ("gunicorn", "--preload")


class Serving:
    """A server, on a free port, of the ``app`` of a program, from construction on; it is killed at the end of a block.

    ``command`` is the server's module and options; ``log`` is the file of all that it says. Let `until_served` tell
    when it answers.
    """

    def __init__(self, folder: Path, code: str, *command: str, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = folder / "log"
        (folder / "shop.py").write_text(code)
        is_bound = command[0] in ("gunicorn", "hypercorn")
        address = f"--bind=127.0.0.1:{self.port}" if is_bound else f"--port={self.port}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command, address, "shop:app"], cwd=folder, env=environ, stdout=log, stderr=log
            )

    def get(self, path: str = "/") -> bool:
        """Tell whether it answers a request with 200."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def until_served(self, path: str = "/") -> None:
        """Return after the first request that it answers with 200; fails with what the server said."""

        def is_served() -> bool:
            assert self.process.poll() is None, f"the server has ended: {self.log.read_text()}"
            return self.get(path)

        until(is_served, 30)

    def terminate(self, number: int = signal.SIGTERM) -> float:
        """Send a signal, and return the seconds that the end took."""
        begun = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(60)
        return time.monotonic() - begun

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
