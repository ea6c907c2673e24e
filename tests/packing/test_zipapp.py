"""The package inside a zip file: its modules are found and its SQL is read there, without unpacking."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipapp
from pathlib import Path

import asgi_analytics
from tests.kit.databases import Database
from tests.packing.packs import APPLICATION, check_pack

PACKAGE = Path(asgi_analytics.__file__).parent
MIGRATIONS = Path(__file__).parents[2] / "migrations"


def pack(folder: Path, *left_out: str) -> Path:
    """Return a zip with the application and the package. Dependencies have compiled parts, which no zip can hold."""
    inside = folder / "application"
    shutil.copytree(PACKAGE, inside / "asgi_analytics", ignore=shutil.ignore_patterns("__pycache__", *left_out))
    shutil.copytree(MIGRATIONS, inside / "asgi_analytics" / "migrations", dirs_exist_ok=True)
    shutil.copy(APPLICATION, inside / "__main__.py")
    target = folder / "application.pyz"
    zipapp.create_archive(inside, target)
    shutil.rmtree(inside)
    return target


def test_a_zipapp_finds_all_that_is_in_it(tmp_path: Path, empty_database: Database) -> None:
    archive = pack(tmp_path)
    check_pack([sys.executable, archive], empty_database, archive)


def test_a_pack_without_the_modules_says_so_instead_of_capturing_null_endpoints(tmp_path: Path) -> None:
    archive = pack(tmp_path, "django.py", "litestar.py", "quart.py", "starlette*.py")
    done = subprocess.run([sys.executable, archive, "show"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the modules of asgi_analytics.frameworks are missing from this packed application" in done.stderr
