"""PyInstaller's bundles and shiv's archives: ``tox -e packed`` installs both and runs these."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import asgi_analytics
from tests.kit.databases import Database
from tests.packing.packs import APPLICATION, check_pack, run

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("PyInstaller", reason="PyInstaller is not installed: tox -e packed")
    folder = tmp_path_factory.mktemp("bundle")
    subprocess.run([sys.executable, "-m", "PyInstaller", "--log-level", "ERROR", APPLICATION], cwd=folder, check=True)
    return folder / "dist" / "application"


def test_a_bundle_of_pyinstaller_finds_all_that_is_in_it(bundle: Path, empty_database: Database) -> None:
    check_pack([bundle / "application"], empty_database, bundle)


def test_an_archive_of_shiv_finds_all_that_is_in_it(tmp_path: Path, empty_database: Database) -> None:
    pytest.importorskip("shiv", reason="shiv is not installed: tox -e packed")
    application = tmp_path / "site"
    application.mkdir()
    shutil.copy(APPLICATION, application / "application.py")
    folders: list[str | Path] = [
        "--site-packages",
        application,
        "--site-packages",
        Path(asgi_analytics.__file__).parents[1],
    ]
    target, root = tmp_path / "application.pyz", tmp_path / "unpacked"
    run(sys.executable, "-m", "shiv", *folders, "-e", "application:main", "-o", target)
    check_pack([sys.executable, target], empty_database, root, SHIV_ROOT=str(root))
