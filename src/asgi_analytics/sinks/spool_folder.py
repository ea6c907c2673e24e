"""The folders of a spool: lines on disk that outlive their process, and the folders that dead processes left.

``ROOT/<pid>-<8 hex>/`` holds ``lock`` and segments, ``000000000001.spool``. A process holds the lock of its folder, by
``flock``, as long as it lives: who gets the lock of another folder knows that its process is dead, whatever has its
number now. To delete a segment is to acknowledge it; there is no ledger that could say something else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import stat
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from asgi_analytics.errors import ConfigError
from asgi_analytics.log import log_problem, solved
from asgi_analytics.sinks.spool_lines import (
    FRAME_BYTES,
    GROUP_BYTES,
    OPEN_FLAGS,
    pack,
    read,
    sync_folder,
    unpack,
    write,
)
from asgi_analytics.sinks.spool_lines import sync as sync_file
from asgi_analytics.sinks.spool_orphan import OrphanFolder, remove_folder, remove_unfinished
from asgi_analytics.values import MIB

try:
    import fcntl
except ImportError:  # sinks are imported to be found by their schemes, on any system
    fcntl = None  # type: ignore[assignment]  # the constructor says what is missing

if TYPE_CHECKING:
    from collections.abc import Sequence

SEGMENT_BYTES = 4 * MIB
"""From this size on a new segment is begun, so that room returns while the rest still waits."""

GROUP_EVENTS = 2_000
"""The most events that are taken at once, as many as one write of the worker takes."""

KEPT_BYTES = 8 * MIB
"""So much of what was written is kept in memory too, where it is going to be sent at once."""

MOST_ORPHANS = 4
"""So many folders are adopted at once, so that several processes share the work."""

LOCK_SECONDS = 1.0
"""How long a thread waits for another one to end its write to the disk."""

_NAME = re.compile(r"[0-9]+-[0-9a-f]{8}")


class Group(msgspec.Struct, gc=False):
    """Lines that stand one after the other in a segment."""

    path: Path
    start: int
    end: int
    count: int
    first: bytes
    """The first of the lines."""
    lines: list[bytes] | None = None
    """The lines, where they are kept in memory or have been read."""
    is_taken: bool = False
    """It is being sent, so nothing is added."""


class SpoolFolder:
    """The folder of this process: lines are appended, taken in order, and deleted when they are settled.

    ``root`` is made, mode 0700, when the first lines come. ``max_bytes`` bounds what is on disk, adopted folders
    included. With ``sync`` each group is on the disk before `append` returns. ``keep`` keeps some of the lines in
    memory as well. ``target`` says where the lines go: a folder that was left for another target is not adopted.

    Raises `ConfigError` where the system has no ``flock``.
    """

    def __init__(self, root: Path, *, max_bytes: int, sync: bool, keep: bool, target: str) -> None:
        if fcntl is None:
            raise ConfigError("a spool needs a POSIX system: leave out spool")
        self.root = root
        self.orphans: list[OrphanFolder] = []
        self._max_bytes = max_bytes
        self._sync = sync
        self._keep = keep
        self._target = target
        self._problem = object()  # this folder's own in the log
        self._lock = threading.Lock()
        self._given_up: set[Path] = set()
        self._forget()

    def _forget(self) -> None:
        self._path: Path | None = None
        self._owned: int | None = None
        self._segment: int | None = None
        self._segment_path = Path()
        self._number = 0
        self._size = 0
        self._sizes: dict[Path, int] = {}
        self._groups: deque[Group] = deque()
        self._kept = 0

    def __len__(self) -> int:
        """Return how many events of this process are on disk."""
        return sum(group.count for group in self._groups)

    def waits(self) -> bool:
        """Tell whether events of this process are on disk."""
        return bool(self._groups)

    def is_full_group(self) -> bool:
        """Tell whether as much waits as is taken at once."""
        return len(self._groups) > 1 or bool(self._groups and self._groups[0].count >= GROUP_EVENTS)

    def oldest(self) -> bytes | None:
        """Return the oldest event of this process that is on disk."""
        try:
            return self._groups[0].first
        except IndexError:
            return None

    def on_disk(self) -> int:
        """Return how many bytes are on disk, adopted folders included."""
        return sum(self._sizes.values()) + sum(orphan.on_disk() for orphan in self.orphans)

    # -- writing

    def append(self, lines: Sequence[bytes]) -> bool:
        """Write lines to the disk: all of them, or none; False if there is no room, or it cannot be written."""
        data = pack(lines)
        if not self._lock.acquire(timeout=LOCK_SECONDS):
            return False
        try:
            if self.on_disk() + len(data) > self._max_bytes:
                log_problem((self._problem, "full"), "the spool is full: events wait in the queue; spool_bytes: %d",
                            self._max_bytes)  # fmt: skip
                return False
            segment = self._open_segment()
            start = self._size
            try:
                write(segment, data)
                if self._sync:
                    sync_file(segment)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(segment, start)
                raise
            self._size = self._sizes[self._segment_path] = start + len(data)
            self._add(lines, start)
        except OSError as error:
            log_problem((self._problem, "write"), "nothing can be written to the spool, events wait in the queue: %s",
                        _said(error, self.root))  # fmt: skip
            return False
        else:
            solved((self._problem, "write"))
            solved((self._problem, "full"))
            return True
        finally:
            self._lock.release()

    def _add(self, lines: Sequence[bytes], start: int) -> None:
        size = self._size - start
        kept = list(lines) if self._keep and self._kept + size <= KEPT_BYTES else None
        if kept is not None:
            self._kept += size
        last = self._groups[-1] if self._groups else None
        if (
            last is not None
            and not last.is_taken
            and last.path == self._segment_path
            and (last.lines is None) is (kept is None)
            and last.count + len(lines) <= GROUP_EVENTS
            and self._size - last.start <= GROUP_BYTES
        ):
            last.end = self._size
            last.count += len(lines)
            if last.lines is not None and kept is not None:
                last.lines += kept
            return
        self._groups.append(Group(self._segment_path, start, self._size, len(lines), lines[0], kept))

    def _open_segment(self) -> int:
        if self._path is None or (self._owned is not None and not os.fstat(self._owned).st_nlink):
            self._close_segment()
            self._make()
        if self._segment is not None and (self._size >= SEGMENT_BYTES or not os.fstat(self._segment).st_nlink):
            self._close_segment()
        if self._segment is None:
            assert self._path is not None
            self._number += 1
            path = self._path / f"{self._number:012}.spool"
            self._segment = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | OPEN_FLAGS, 0o600)
            self._segment_path, self._size = path, 0
            if self._sync:
                sync_folder(self._path)
        return self._segment

    def _make(self) -> None:
        """Make the folder under a name that nobody adopts, and give it its own once its lock is held."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_root(self.root)
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        path = self.root / f".{name}"
        path.mkdir(mode=0o700)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_EXCL | OPEN_FLAGS, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            write(lock, self._target.encode())
            path.rename(self.root / name)
            if self._sync:
                sync_folder(self.root)
        except OSError:
            os.close(lock)
            with contextlib.suppress(OSError):
                (path / "lock").unlink()
                path.rmdir()
            raise
        if self._owned is not None:
            os.close(self._owned)
        self._path, self._owned, self._number = self.root / name, lock, 0
        if not self._sync and _is_in_memory(self.root):
            log_problem((self._problem, "memory"), "the spool is on a file system in memory, which does not outlive a "
                        "restart of the machine or the container: %s", self.root)  # fmt: skip

    # -- reading

    def take(self, most: int) -> tuple[list[bytes], int]:
        """Return the oldest lines, ``most`` at most, and how many before them could not be read and are gone.

        The same ones come again until `settled` is called.
        """
        with self._lock:
            lost = 0
            while self._groups:
                group = self._groups[0]
                group.is_taken = True
                if group.lines is None:
                    lines, _ = unpack(read(group.path, group.start, group.end))
                    del lines[group.count :]
                    lost += group.count - len(lines)
                    group.lines, group.count = lines, len(lines)
                    self._kept += group.end - group.start
                if group.lines:
                    return (group.lines if len(group.lines) <= most else group.lines[:most]), lost
                self._drop_first()
            return [], lost

    def settled(self, number: int) -> None:
        """Forget so many of the oldest lines, and delete the segments that hold no others."""
        with self._lock:
            if not self._groups:  # left to others meanwhile
                return
            group = self._groups[0]
            assert group.lines is not None
            if number < len(group.lines):
                size = sum(map(len, group.lines[:number])) + number * FRAME_BYTES
                self._kept -= min(size, group.end - group.start)
                group.start = min(group.start + size, group.end)
                # Not in place: the lines that were taken are this list.
                group.lines = group.lines[number:]
                group.count = len(group.lines)
                group.first = group.lines[0]
            else:
                self._drop_first()

    def _drop_first(self) -> None:
        group = self._groups.popleft()
        self._kept -= group.end - group.start
        if self._groups and self._groups[0].path == group.path:
            return
        with contextlib.suppress(OSError):
            if group.path == self._segment_path and self._segment is not None:
                # Nothing else waits: a kill would send no more again than what is written from here on.
                os.ftruncate(self._segment, 0)
                self._size = self._sizes[group.path] = 0
                return
            group.path.unlink()
        self._sizes.pop(group.path, None)

    # -- what others left

    def adopt(self) -> None:
        """Take the folders that dead processes have left for the same target."""
        try:
            entries = list(os.scandir(self.root))
        except OSError:  # it is not there yet, or not ours: writing says so
            return
        known = {orphan.path.name for orphan in self.orphans}
        for entry in sorted(entries, key=lambda entry: entry.name):
            if len(self.orphans) >= MOST_ORPHANS:
                return
            path = self.root / entry.name
            if entry.name.startswith(".") and _NAME.fullmatch(entry.name[1:]):
                with contextlib.suppress(OSError):
                    remove_unfinished(path)
            if not _NAME.fullmatch(entry.name) or entry.name in known or path == self._path or path in self._given_up:
                continue
            with contextlib.suppress(OSError):  # another one was faster, or it is not ours to read
                if (orphan := OrphanFolder.lock(path, self._target)) is not None:
                    self.orphans.append(orphan)

    def give_up(self, orphan: OrphanFolder, error: OSError) -> None:
        """Leave a folder that cannot be read or emptied as it is."""
        log_problem((self._problem, orphan.path), "a spool that was left cannot be read, and stays where it is: %s",
                    _said(error, orphan.path), level=logging.ERROR)  # fmt: skip
        self._given_up.add(orphan.path)
        self.orphans.remove(orphan)
        orphan.close()

    # -- the end

    def close(self) -> None:
        """Leave the folders to others, and remove those in which nothing is left."""
        with self._lock:
            for orphan in self.orphans:
                orphan.close()
            self.orphans = []
            self._close_segment()
            if self._path is not None and not self._groups:
                remove_folder(self._path)
            if self._owned is not None:
                os.close(self._owned)
            self._forget()

    def after_fork(self) -> None:
        """Close what the child of a fork has inherited: the parent keeps its locks."""
        for inherited in (self._segment, self._owned, *(orphan.owned for orphan in self.orphans)):
            if inherited is not None:
                with contextlib.suppress(OSError):
                    os.close(inherited)
        self._segment = self._owned = None
        self.orphans = []

    def _close_segment(self) -> None:
        if self._segment is not None:
            os.close(self._segment)
            self._segment = None


def _check_root(root: Path) -> None:
    """Raise `PermissionError` for a folder in which somebody else could replace ours."""
    found = root.stat()
    if found.st_mode & stat.S_ISVTX:
        return
    if found.st_uid not in (os.geteuid(), 0):
        raise PermissionError(f"it belongs to another user, with the number {found.st_uid}")
    if found.st_mode & stat.S_IWOTH:
        raise PermissionError("everybody may write there: chmod o-w")


def _is_in_memory(root: Path) -> bool:
    """Tell whether a folder is on tmpfs, where that can be found out."""
    kinds: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError), open("/proc/self/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, place, kind, *_ = line.split()
            kinds[place] = kind
    path = root.resolve()
    return next((kinds[str(one)] for one in (path, *path.parents) if str(one) in kinds), "") in ("tmpfs", "ramfs")


def _said(error: OSError, root: Path) -> str:
    """Return what is logged of an error: the system's words and the folder."""
    return f"{error.strerror or error}: {root}"
