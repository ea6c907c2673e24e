"""The folders of a spool: lines on disk that outlive their process, and the folders that dead processes left.

``ROOT/<pid>-<8 hex>/`` holds ``lock`` and segments, ``000000000001.spool``. A line of a segment is the CRC-32 of an
event as eight hexadecimal digits, a space, the JSON of the event, and a line feed. JSON holds no bare line feed, so
damage ends with its line, and ``cut -c10-`` gives the events. A process holds the lock of its folder, by ``flock``, as
long as it lives: who gets the lock of another folder knows that its process is dead, whatever has its number now. To
delete a segment is to acknowledge it; there is no ledger that could say something else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import stat
import struct
import threading
from collections import deque
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from asgi_analytics.errors import ConfigError
from asgi_analytics.log import log_problem, solved
from asgi_analytics.values import KIB, MIB

try:
    import fcntl
except ImportError:  # sinks are imported to be found by their schemes, on any system
    fcntl = None  # type: ignore[assignment]  # the constructor says what is missing

if TYPE_CHECKING:
    from collections.abc import Sequence

SEGMENT_BYTES = 4 * MIB
"""From this size on a new segment is begun, so that room returns while the rest still waits."""

GROUP_EVENTS = 2_000
GROUP_BYTES = 512 * KIB
"""The most that is read at once: what one write of the worker takes."""

KEPT_BYTES = 8 * MIB
"""So much of what was written is kept in memory too, where it is going to be sent at once."""

MOST_ORPHANS = 4
"""So many folders are adopted at once, so that several processes share the work."""

LOCK_SECONDS = 1.0
"""How long a thread waits for another one to end its write to the disk."""

_HEAD = 9
_FRAME = _HEAD + 1
_NAME = re.compile(r"[0-9]+-[0-9a-f]{8}")
_SEGMENT = re.compile(r"[0-9]{12}\.spool")
_OPEN = os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) if hasattr(os, "O_CLOEXEC") else 0


def pack(lines: Sequence[bytes]) -> bytes:
    """Return events as they stand in a segment."""
    data = b"".join(chain.from_iterable(zip(_heads(lines), lines, repeat(b"\n"))))
    if data.count(b"\n") != len(lines):  # a bare one is white space between two tokens
        return pack([line.replace(b"\n", b" ") for line in lines])
    return data


def unpack(data: bytes) -> tuple[list[bytes], int]:
    """Return the events of a piece of a segment, and how many of its lines are damaged or torn."""
    parts = data.split(b"\n")
    torn = parts.pop()
    lines = [part[_HEAD:] for part in parts]
    good = [line for part, head, line in zip(parts, _heads(lines), lines, strict=True) if part[:_HEAD] == head]
    return good, len(parts) - len(good) + (1 if torn else 0)


def _heads(lines: Sequence[bytes]) -> list[bytes]:
    """Return what stands before each line. All at once: bytes that are formatted one by one take three times as long."""
    sums = struct.pack(f">{len(lines)}I", *map(crc32, lines)).hex(" ", 4).encode() + b" "
    return [sums[place : place + _HEAD] for place in range(0, _HEAD * len(lines), _HEAD)]


class Group(msgspec.Struct, gc=False):
    """Lines that stand one after the other in a segment."""

    path: Path
    start: int
    end: int
    count: int
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
                _write(segment, data)
                if self._sync:
                    _sync(segment)
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
        self._groups.append(Group(self._segment_path, start, self._size, len(lines), kept))

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
            self._segment = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | _OPEN, 0o600)
            self._segment_path, self._size = path, 0
            if self._sync:
                _sync_folder(self._path)
        return self._segment

    def _make(self) -> None:
        """Make the folder under a name that nobody adopts, and give it its own once its lock is held."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_root(self.root)
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        path = self.root / f".{name}"
        path.mkdir(mode=0o700)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write(lock, self._target.encode())
            path.rename(self.root / name)
            if self._sync:
                _sync_folder(self.root)
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
                    lines, _ = unpack(_read(group.path, group.start, group.end))
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
            group = self._groups[0]
            assert group.lines is not None
            if number < len(group.lines):
                size = sum(map(len, group.lines[:number])) + number * _FRAME
                self._kept -= min(size, group.end - group.start)
                group.start = min(group.start + size, group.end)
                # Not in place: the lines that were taken are this list.
                group.lines = group.lines[number:]
                group.count = len(group.lines)
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
                _remove(self._path)
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


class OrphanFolder:
    """A folder whose process is dead, and whose lock is held by this one until all of it is settled."""

    def __init__(self, path: Path, owned: int) -> None:
        self.path = path
        self.owned = owned
        self._sizes = {one: one.stat().st_size for one in sorted(path.iterdir()) if _SEGMENT.fullmatch(one.name)}
        self._offset = 0
        self._next_offset = 0
        self._lines: list[bytes] = []

    @classmethod
    def lock(cls, path: Path, target: str) -> OrphanFolder | None:
        """Return a folder if its process is dead and it was left for this target; raises `OSError`."""
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return None
        lock = os.open(path / "lock", os.O_RDWR | _OPEN)
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
            data = _read_lines(path, self._next_offset)
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
        _remove(self.path)
        self.close()

    def close(self) -> None:
        """Leave the folder to others."""
        with contextlib.suppress(OSError):
            os.close(self.owned)


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _sync(file: int) -> None:
    getattr(os, "fdatasync", os.fsync)(file)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | _OPEN)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path, start: int, end: int) -> bytes:
    """Return a piece of a segment, or what can be read of it."""
    try:
        file = os.open(path, os.O_RDONLY | _OPEN)
    except OSError:
        return b""
    try:
        return os.pread(file, end - start, start)
    except OSError:
        return b""
    finally:
        os.close(file)


def _read_lines(path: Path, start: int) -> bytes:
    """Return whole lines of a segment, from a place on; at its end perhaps a torn one."""
    file = os.open(path, os.O_RDONLY | _OPEN)
    try:
        data = os.pread(file, GROUP_BYTES, start)
        size = len(data)
        while size == GROUP_BYTES and b"\n" not in data:
            more = os.pread(file, GROUP_BYTES, start + len(data))
            data, size = data + more, len(more)
        return data if size < GROUP_BYTES else data[: data.rindex(b"\n") + 1]
    finally:
        os.close(file)


def _remove(path: Path) -> None:
    """Remove a folder with nothing but settled segments and its lock, whose holder calls; others' files stay."""
    with contextlib.suppress(OSError):
        for one in path.iterdir():
            if _SEGMENT.fullmatch(one.name):
                one.unlink()
        # Under a name that nobody looks at: without the lock it would look like a folder in the making.
        hidden = path.with_name(f".{path.name}")
        path.rename(hidden)
        (hidden / "lock").unlink()
        hidden.rmdir()


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
