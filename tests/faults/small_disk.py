"""A file system that is small enough to be filled."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.kit.databases import Cluster

FILL_BYTES = 1 << 20


class SmallDisk:
    """A file system in memory, of some megabytes, that a server may put a tablespace on."""

    def __init__(self, folder: Path, megabytes: int, owner: tuple[int, int]) -> None:
        self.folder = folder
        self.tablespace = folder / "tablespace"
        self._ballast = folder / "ballast"
        folder.mkdir()
        options = f"size={megabytes}m,uid={owner[0]},gid={owner[1]},mode=0755"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True, check=False
        )
        if done.returncode:
            folder.rmdir()
            pytest.skip(f"no file system can be mounted here ({done.stderr.strip()}): the disk cannot be filled")
        self.tablespace.mkdir(mode=0o700)
        subprocess.run(["chown", f"{owner[0]}:{owner[1]}", self.tablespace], check=True)

    @classmethod
    def beside(cls, cluster: Cluster, megabytes: int) -> SmallDisk:
        """Mount one next to a server's data; skips the test where that is not allowed."""
        if cluster._run_as is None:
            pytest.skip("only root can mount a file system: the disk cannot be filled")
        return cls(cluster._folder.with_name(f"{cluster._folder.name}-disk"), megabytes, cluster._run_as)

    def fill(self) -> None:
        """Take all the room that is left."""
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while file.write(bytes(FILL_BYTES)):
                    pass
            except OSError:  # ENOSPC, which is what this is for
                return

    def make_room(self) -> None:
        """Give back what `fill` took."""
        self._ballast.unlink()

    def unmount(self) -> None:
        """Remove it; nobody may use it any more."""
        subprocess.run(["umount", "-l", self.folder], check=True)
        self.folder.rmdir()
