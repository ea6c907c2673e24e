"""Where a person is: in the spool, in folders that dead processes have left.

The folder of a living process is its own: it knows by heart what stands where. Its events are on their way into the
database, as those of its queue are.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from typing import TYPE_CHECKING

import msgspec

from asgi_analytics.admin.subjects.payloads import is_own
from asgi_analytics.admin.subjects.report import Exported
from asgi_analytics.errors import ConfigError
from asgi_analytics.sinks.spool_lines import OPEN_FLAGS, pack, sync, sync_folder, unpack, write
from asgi_analytics.sinks.spool_orphan import SEGMENT_NAME

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]  # `_segments` says what is missing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from asgi_analytics.admin.subjects.work import Work

SPOOL = "spool"
UNFINISHED = ".analytics-subject-"


class Spool:
    """The segments of a spool; each is replaced as a whole, so that a kill leaves the old one or the new one."""

    async def export(self, work: Work) -> AsyncIterator[Exported]:
        """Yield the events that are on disk."""
        number = 0
        for path in self._segments(work):
            for part in _parts(path):
                event = _event(part)
                if event is not None and is_own(work, event):
                    number += 1
                    yield Exported(table=SPOOL, timestamp=None, id=None, row=msgspec.Raw(event))
        await work.count(SPOOL, number)

    async def erase(self, work: Work) -> None:
        """Leave their lines out."""
        for path in self._segments(work):
            await self._rewrite(work, path)

    async def anonymise(self, work: Work) -> None:
        """Write their lines anew, without the person."""
        for path in self._segments(work):
            await self._rewrite(work, path)

    async def _rewrite(self, work: Work, path: Path) -> None:
        left, number = _left(work, path)
        if number:
            # Counted first: after a kill in between they are counted twice, and never gone without a trace in the log.
            await work.count(SPOOL, number)
            _replace(path, left)

    def _segments(self, work: Work) -> Iterator[Path]:
        """Yield the segments of dead processes, while their folder is locked; warn of the others."""
        root = work.spool
        if root is None:
            return
        if fcntl is None:
            raise ConfigError("a spool needs a POSIX system: leave out the folder of the spool")
        for path in sorted(root.iterdir()):
            if path.name.startswith(UNFINISHED):
                with contextlib.suppress(OSError):  # of a run that was killed
                    path.unlink()
            if not (path / "lock").is_file() or not stat.S_ISDIR(os.lstat(path).st_mode):
                continue
            lock = os.open(path / "lock", os.O_RDWR | OPEN_FLAGS)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._warn(work, path)
            else:
                yield from [one for one in sorted(path.iterdir()) if SEGMENT_NAME.fullmatch(one.name)]
            finally:
                os.close(lock)

    def _warn(self, work: Work, path: Path) -> None:
        number = 0
        for segment in path.iterdir():
            with contextlib.suppress(OSError):  # sent meanwhile
                number += sum(is_own(work, event) for event in unpack(segment.read_bytes())[0])
        if number:
            work.warnings.append(
                f"a process that is running has spooled events of this person and will send them: run this again when "
                f"it has, or stop it; folder: {path}; events: {number}"
            )


def _parts(path: Path) -> list[bytes]:
    """Return the lines of a segment, the torn one at its end too, without their ends."""
    return [part for part in path.read_bytes().split(b"\n") if part]


def _left(work: Work, path: Path) -> tuple[bytes, int]:
    """Return what is to be left of a segment, and how many lines of the person it has."""
    number, left = 0, []
    for part in _parts(path):
        event = _event(part)
        # What is damaged stays, to be counted when it is read, unless it quotes the id.
        if not (is_own(work, event) if event is not None else work.subject.is_in(part.decode("utf-8", "replace"))):
            left.append(part + b"\n")
            continue
        number += 1
        if event is not None and work.request.kind == "anonymise":
            with contextlib.suppress(ValueError, msgspec.MsgspecError, RecursionError):
                left.append(pack([work.anonymous.event(event)]))
    return b"".join(left), number


def _event(part: bytes) -> bytes | None:
    """Return the event of a line of the spool, or None if it is damaged."""
    events, _ = unpack(part + b"\n")
    return events[0] if events else None


def _replace(path: Path, data: bytes) -> None:
    """Put other bytes in the place of a file: all of them, or none. A segment without any is deleted."""
    if not data:
        path.unlink()
        return
    other = path.parent.parent / f"{UNFINISHED}{secrets.token_hex(4)}"
    file = os.open(other, os.O_WRONLY | os.O_CREAT | os.O_EXCL | OPEN_FLAGS, 0o600)
    try:
        write(file, data)
        sync(file)
        other.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            other.unlink()
        raise
    finally:
        os.close(file)
    sync_folder(path.parent)
