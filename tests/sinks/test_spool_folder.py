"""The folders of a spool: what damage, full disks, other users and other processes can and cannot do to them."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asgi_analytics.sinks import spool_folder
from asgi_analytics.sinks.spool_folder import SpoolFolder
from asgi_analytics.sinks.spool_lines import pack, unpack

LINES = [b'{"event_id":"%d","data":"%s"}' % (number, b"x" * number) for number in range(6)]


def folder_in(root: Path, *, max_bytes: int = 1 << 30, sync: bool = False, keep: bool = False) -> SpoolFolder:
    return SpoolFolder(root, max_bytes=max_bytes, sync=sync, keep=keep, target="here")


def drained(folder: SpoolFolder, most: int = 4) -> list[bytes]:
    """Return the lines of a folder's own, settling them; none may be lost."""
    found: list[bytes] = []
    while folder.waits():
        lines, lost = folder.take(most)
        assert not lost
        found += lines
        folder.settled(len(lines))
    return found


def recovered(root: Path) -> tuple[list[bytes], int]:
    """Return what a process finds in the folders of dead ones, and how many damaged lines; the folders are gone."""
    folder = folder_in(root)
    found, damaged = [], 0
    folder.adopt()
    while folder.orphans:
        orphan = folder.orphans[0]
        lines, bad = orphan.take(4)
        damaged += bad
        found += lines
        orphan.settled(len(lines))
        if not lines:
            folder.orphans.remove(orphan)
            orphan.remove()
            folder.adopt()
    folder.close()
    return found, damaged


def left_by_a_dead_process(root: Path) -> Path:
    """Leave a folder with `LINES` behind, as a process does that is killed; returns its only segment."""
    folder = folder_in(root)
    assert folder.append(LINES[:2])
    assert folder.append(LINES[2:])
    folder.after_fork()  # its descriptors are closed, and nothing else is done
    return folder._segment_path


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("sync", [False, True])
def test_lines_come_back_in_order_and_settled_ones_leave_the_disk(tmp_path: Path, keep: bool, sync: bool) -> None:
    folder = folder_in(tmp_path / "spool", keep=keep, sync=sync)
    for number in range(0, 6, 2):
        assert folder.append(LINES[number : number + 2])
    [own] = (tmp_path / "spool").iterdir()
    assert stat.S_IMODE(own.stat().st_mode) == stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700
    assert {stat.S_IMODE(one.stat().st_mode) for one in own.iterdir()} == {0o600}
    assert [line[9:] for line in (own / "000000000001.spool").read_bytes().splitlines()] == LINES
    assert folder.take(2) == folder.take(2) == (LINES[:2], 0)
    folder.settled(1)
    assert folder.append([b"{}"])
    assert drained(folder) == [*LINES[1:], b"{}"]
    assert folder.on_disk() == 0
    folder.close()
    assert not list((tmp_path / "spool").iterdir())


def test_segments_are_deleted_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_folder, "SEGMENT_BYTES", 100)
    folder = folder_in(tmp_path)
    lines = [b'{"number":%d}' % number for number in range(200)]
    for line in lines:
        assert folder.append([line])
    segments = len(list(tmp_path.glob("*/*.spool")))
    assert segments > 20
    assert [folder.take(1)[0][0], len(folder)] == [lines[0], 200]
    folder.settled(1)
    assert drained(folder, 7) == lines[1:]
    assert len(list(tmp_path.glob("*/*.spool"))) == 1
    folder.close()


def test_a_tail_torn_at_any_byte_costs_the_line_it_lies_in(tmp_path: Path) -> None:
    whole = left_by_a_dead_process(tmp_path).read_bytes()
    ends = [len(pack(LINES[:number])) for number in range(7)]
    for length in range(len(whole) + 1):
        [segment] = tmp_path.glob("*/*.spool") if length == 0 else [left_by_a_dead_process(tmp_path)]
        segment.write_bytes(whole[:length])
        intact = sum(end <= length for end in ends) - 1
        assert recovered(tmp_path) == (LINES[:intact], 0 if length in ends else 1), length
    assert not list(tmp_path.iterdir())


def test_a_flipped_byte_at_any_place_costs_the_lines_it_lies_in() -> None:
    whole = pack(LINES)
    ends = [len(pack(LINES[:number])) for number in range(1, 7)]
    chance = random.Random(3)
    for place in range(len(whole)):
        number = sum(end <= place for end in ends)
        hit = {number, number + 1} if place + 1 in ends else {number}
        for value in {whole[place] ^ 1 << chance.randrange(8), 0, 10, 255} - {whole[place]}:
            lines, damaged = unpack(whole[:place] + bytes([value]) + whole[place + 1 :])
            assert lines == [line for one, line in enumerate(LINES) if one not in hit], (place, value)
            assert damaged in (1, 2)


def test_the_damage_of_its_own_lines_is_counted_by_events(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    assert folder.append(LINES)
    [segment] = tmp_path.glob("*/*.spool")
    data = bytearray(segment.read_bytes())
    data[len(pack(LINES[:2])) - 1] = 0  # the end of the second line: the third goes with it
    segment.write_bytes(data)
    assert folder.take(9) == ([LINES[0], *LINES[3:]], 2)
    folder.settled(4)
    assert not folder.waits()
    assert folder.append(LINES)
    segment.unlink()
    assert folder.take(9) == ([], 6)
    assert folder.append(LINES)
    assert drained(folder) == LINES


def test_the_bound_holds_adopted_folders_included_and_room_returns(tmp_path: Path) -> None:
    left_by_a_dead_process(tmp_path)
    size = len(pack(LINES))
    folder = folder_in(tmp_path, max_bytes=2 * size)
    folder.adopt()
    assert folder.append(LINES)
    assert not folder.append([b"{}"])
    assert drained(folder) == LINES
    assert folder.append(LINES)
    folder.close()


def test_a_line_feed_between_two_tokens_does_not_cut_a_line(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    assert folder.append([b'{"a":\n1}', b"{}"])
    assert drained(folder) == [b'{"a": 1}', b"{}"]
    folder.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here: the disk cannot be filled")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_takes_what_fits_whole_and_goes_on_when_there_is_room(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = folder_in(small_disk)
    groups = [[b'{"group":%d,"data":"%s"}' % (number, b"x" * 5_000)] * 4 for number in range(30)]
    taken = [group for group in groups if folder.append(group)]
    assert 5 < len(taken) < 20
    assert "No space left on device" in caplog.text
    assert "in memory" in caplog.text
    assert drained(folder) == [line for group in taken for line in group]
    assert folder.append(groups[0])
    folder.close()
    assert recovered(small_disk) == (groups[0], 0)


def test_a_folder_that_cannot_be_written_says_so_and_takes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    assert not folder_in(tmp_path / "file").append(LINES)
    assert "nothing can be written to the spool, events wait in the queue" in caplog.text
    assert str(tmp_path) in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_read_only_folder_a_folder_of_another_user_and_one_for_everybody_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    os.chown(foreign, 12345, 12345)
    assert not folder_in(foreign).append(LINES)
    assert "another user, with the number 12345" in caplog.text
    everybody = tmp_path / "everybody"
    everybody.mkdir()
    everybody.chmod(0o777)
    assert not folder_in(everybody).append(LINES)
    assert "everybody may write there" in caplog.text
    everybody.chmod(0o1777)
    everyone = folder_in(everybody)
    assert everyone.append(LINES)
    everyone.close()
    for one in (*everybody.iterdir(), *everybody.glob("*/*")):
        os.chown(one, 12345, 12345)
    assert recovered(everybody) == ([], 0)  # somebody else's events are not delivered as ours
    code = f"""
import os
from tests.sinks.test_spool_folder import LINES, Path, folder_in
os.chmod({str(tmp_path)!r}, 0o755); os.mkdir({str(tmp_path / "readonly")!r}, 0o555); os.setuid(12345)
assert not folder_in(Path({str(tmp_path / "readonly")!r})).append(LINES)
"""
    for parent in (tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path.cwd())
    assert (done.returncode, "Permission denied" in done.stderr) == (0, True), done.stderr


def test_what_lives_or_belongs_elsewhere_is_not_adopted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    alive = folder_in(tmp_path)
    assert alive.append(LINES)
    other = SpoolFolder(tmp_path, max_bytes=1 << 20, sync=False, keep=False, target="elsewhere")
    assert other.append(LINES)
    other.close()
    (tmp_path / "1-00000000").symlink_to(next(tmp_path.iterdir()))
    (tmp_path / "notes").mkdir()
    (tmp_path / "2-00000000").write_text("")
    assert recovered(tmp_path) == ([], 0)
    assert "was left for another URL" in caplog.text
    alive.close()
    assert recovered(tmp_path) == (LINES, 0)


def test_each_folder_is_adopted_by_one_and_left_to_the_next(tmp_path: Path) -> None:
    for _ in range(5):
        left_by_a_dead_process(tmp_path)
    one, two = folder_in(tmp_path), folder_in(tmp_path)
    one.adopt()
    two.adopt()
    assert (len(one.orphans), len(two.orphans)) == (4, 1)
    lines, _ = one.orphans[0].take(3)
    one.orphans[0].settled(len(lines))
    one.close()  # of a folder that was half sent nothing is gone: the ids keep it from being stored twice
    assert recovered(tmp_path) == (LINES * 4, 0)
    two.close()
    assert recovered(tmp_path) == (LINES, 0)


def test_a_folder_that_is_removed_under_a_process_is_made_anew(tmp_path: Path) -> None:
    folder = folder_in(tmp_path / "spool")
    assert folder.append(LINES)
    subprocess.run(["rm", "-rf", tmp_path / "spool"], check=True)
    assert folder.append(LINES)
    assert folder.take(9) == (LINES, 6)
    folder.close()
    assert recovered(tmp_path / "spool") == (LINES, 0)


def test_what_a_kill_leaves_of_a_folder_in_the_making_is_removed_later(tmp_path: Path) -> None:
    for name, files in ((".1-00000000", ["lock"]), (".2-00000000", []), (".3-00000000", ["notes"]), (".4-0000000", [])):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("")
    assert recovered(tmp_path) == ([], 0)
    assert len(list(tmp_path.iterdir())) == 4
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    assert recovered(tmp_path) == ([], 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".3-00000000", ".4-0000000"]
