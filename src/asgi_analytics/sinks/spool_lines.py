"""The lines of a spool: events on disk, each with a checksum, so that damage is seen and ends with its line.

A line is the CRC-32 of an event as eight hexadecimal digits, a space, the JSON of the event, and a line feed. JSON
holds no bare line feed, and ``cut -c10-`` gives the events.
"""

from __future__ import annotations

import os
import struct
from itertools import chain, repeat
from typing import TYPE_CHECKING
from zlib import crc32

from asgi_analytics.values import KIB

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

GROUP_BYTES = 512 * KIB
"""The most that is read at once, about: what one write of the worker takes."""

OPEN_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW if hasattr(os, "O_NOFOLLOW") else 0
"""No program that is started inherits a file of the spool, and no link leads out of its folder."""

_HEAD = 9
FRAME_BYTES = _HEAD + 1
"""How many bytes a line has beyond its event."""


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
    """Return what stands before each line, all at once: to format them one by one takes longer."""
    sums = struct.pack(f">{len(lines)}I", *map(crc32, lines)).hex(" ", 4).encode() + b" "
    return [sums[place : place + _HEAD] for place in range(0, _HEAD * len(lines), _HEAD)]


def write(file: int, data: bytes) -> None:
    """Write all of it, or raise `OSError`."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def sync(file: int) -> None:
    """Wait until the disk has what was written."""
    getattr(os, "fdatasync", os.fsync)(file)


def sync_folder(path: Path) -> None:
    """Wait until the disk has the names that were made in a folder."""
    folder = os.open(path, os.O_RDONLY | OPEN_FLAGS)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(path: Path, start: int, end: int) -> bytes:
    """Return a piece of a segment, or what can be read of it."""
    try:
        file = os.open(path, os.O_RDONLY | OPEN_FLAGS)
    except OSError:
        return b""
    try:
        return os.pread(file, end - start, start)
    except OSError:
        return b""
    finally:
        os.close(file)


def read_lines(path: Path, start: int) -> bytes:
    """Return whole lines of a segment, from a place on; at its end perhaps a torn one."""
    file = os.open(path, os.O_RDONLY | OPEN_FLAGS)
    try:
        data = os.pread(file, GROUP_BYTES, start)
        size = len(data)
        while size == GROUP_BYTES and b"\n" not in data:
            more = os.pread(file, GROUP_BYTES, start + len(data))
            data, size = data + more, len(more)
        return data if size < GROUP_BYTES else data[: data.rindex(b"\n") + 1]
    finally:
        os.close(file)
