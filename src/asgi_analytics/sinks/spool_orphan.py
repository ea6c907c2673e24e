"""The folder that a dead process left in the spool, and how it is taken over, sent and removed."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from typing import TYPE_CHECKING

from asgi_analytics.log import log_problem
from asgi_analytics.sinks.spool_lines import OPEN_FLAGS, read_lines, unpack

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]  # `SpoolFolder` says what is missing

if TYPE_CHECKING:
    from pathlib import Path

UNFINISHED_SECONDS = 60.0
"""What a folder that is being made or removed gets to be finished."""

SEGMENT_NAME = re.compile(r"[0-9]{12}\.spool")


class OrphanFolder:
    """A folder whose process is dead, and whose lock is held by this one until all of it is settled."""

    def __init__(self, path: Path, owned: int) -> None:
        self.path = path
        self.owned = owned
        self._sizes = {one: one.stat().st_size for one in sorted(path.iterdir()) if SEGMENT_NAME.fullmatch(one.name)}
        self._offset = 0
        self._next_offset = 0
        self._lines: list[bytes] = []

    @classmethod
    def lock(cls, path: Path, target: str) -> OrphanFolder | None:
        """Return a folder if its process is dead and it was left for this target; raises `OSError`."""
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return None
        lock = os.open(path / "lock", os.O_RDWR | OPEN_FLAGS)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.lstat(path / "lock")):  # not one that was removed meanwhile
                if os.read(lock, 200).decode("ascii", "replace") == target:
                    return cls(path, lock)
                log_problem((__name__, path), "a spool was left for another URL, and waits for a process with that "
                            "URL; folder: %s", path)  # fmt: skip
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)
        return None

    def on_disk(self) -> int:
        """Return how many bytes are on disk."""
        return sum(self._sizes.values())

    def take(self, most: int) -> tuple[list[bytes], int]:
        """Return the oldest lines, ``most`` at most, and how many damaged lines were found before them.

        No lines at the end. The same ones come again until `settled` is called. Raises `OSError`.
        """
        damaged = 0
        while not self._lines and self._sizes:
            path = next(iter(self._sizes))
            data = read_lines(path, self._next_offset)
            self._offset, self._next_offset = self._next_offset, self._next_offset + len(data)
            if not data:
                path.unlink()
                del self._sizes[path]
                self._offset = self._next_offset = 0
                continue
            self._lines, found = unpack(data)
            damaged += found
        return (self._lines if len(self._lines) <= most else self._lines[:most]), damaged

    def settled(self, number: int) -> None:
        """Forget so many of the oldest lines."""
        self._lines = self._lines[number:]

    def remove(self) -> None:
        """Remove the folder, of which all is settled."""
        remove_folder(self.path)
        self.close()

    def close(self) -> None:
        """Leave the folder to others."""
        with contextlib.suppress(OSError):
            os.close(self.owned)


def remove_folder(path: Path) -> None:
    """Remove a folder with nothing but settled segments and its lock, whose holder calls; others' files stay."""
    with contextlib.suppress(OSError):
        for one in path.iterdir():
            if SEGMENT_NAME.fullmatch(one.name):
                one.unlink()
        # Under a name that nobody looks at: without the lock it would look like a folder in the making.
        hidden = path.with_name(f".{path.name}")
        path.rename(hidden)
        (hidden / "lock").unlink()
        hidden.rmdir()


def remove_unfinished(path: Path) -> None:
    """Remove what a process has left that was killed while it made or removed its folder; raises `OSError`."""
    found = os.lstat(path)
    if found.st_uid != os.geteuid() or time.time() - found.st_mtime < UNFINISHED_SECONDS:
        return
    with contextlib.suppress(FileNotFoundError):
        lock = os.open(path / "lock", os.O_RDWR | OPEN_FLAGS)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (path / "lock").unlink()
        finally:
            os.close(lock)
    path.rmdir()
