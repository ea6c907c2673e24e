"""Runs the benchmarks, one after the other, and writes RESULTS.md: the goals in one table, then what each printed.

Run:   python -m benchmarks [name …]     (all of them take about half an hour; a name is a file here, ``tracking``)
Needs: the dependency group ``benchmarks``, which `tox -e benchmarks` brings, and wrk (apt install wrk)
See:   benchmarks/RESULTS.md. The machine should do nothing else meanwhile.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.goals import Goal, goals_in

HERE = Path(__file__).parent
ALL: dict[str, list[str]] = {
    "tracking": [],
    "metrics": [],
    "storing": [],
    "outage": [],
    "spool": [],
    "sqlite": [],
    "export": [],
    "aggregates": ["--events", "5000000"],
    "middleware": [],
    "uvicorn_wrk": [],
    "asyncpg_queries": [],
    "ingestion": ["--million"],
    "reading": [],
    "product": [],
    "dashboard": [],
    "api": [],
    "keeping": [],
    "scale": [],
    "subjects": [],
}
"""Each benchmark with its arguments."""
PACKAGES = (
    "asyncpg", "msgspec", "starlette", "uvicorn", "uvloop", "httptools", "opentelemetry-sdk",
    "opentelemetry-instrumentation-asgi", "opentelemetry-instrumentation-asyncpg", "sentry-sdk", "apitally",
    "prometheus-fastapi-instrumentator", "pydantic",
)  # fmt: skip


def run(name: str, arguments: list[str]) -> str:
    """Run one benchmark and return what it printed; it is shown meanwhile."""
    command = [sys.executable, str(HERE / f"{name}.py"), *arguments]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        lines.append(f"\nended with exit code {process.returncode}: its goals are not shown\n")
    return "".join(lines)


def installed(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} not installed"


def write_results(sections: dict[str, str], goals: list[tuple[str, Goal]], load: float) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    text = [
        "# Results",
        "",
        f"Measured on {datetime.now(UTC):%Y-%m-%d} by `python -m benchmarks` on {os.cpu_count()} cores with "
        f"{memory:.0f} GiB, {platform.python_implementation()} {platform.python_version()}; "
        f"the load of the machine before it was {load:.2f}.",
        "Only ratios within one table count. " + ", ".join(map(installed, PACKAGES)) + ".",
        "",
        "| goal | measured | bound | |",
        "|---|---|---|---|",
        *(
            f"| {goal.what} | {goal.measured} | {goal.bound} | {'yes' if goal.held == 'holds' else '**no**'} |"
            for _, goal in goals
        ),
        "",
    ]
    for title, output in sections.items():
        kept = "\n".join(line for line in output.splitlines() if not line.startswith("goal: "))
        text += [f"## {title}", "", kept.strip(), ""]
    remarks = HERE / "REMARKS.md"
    if remarks.exists():
        text += ["## Remarks", "", remarks.read_text(encoding="utf-8").strip(), ""]
    (HERE / "RESULTS.md").write_text("\n".join(text), encoding="utf-8")


def main() -> None:
    names = sys.argv[1:] or list(ALL)
    if unknown := [name for name in names if name not in ALL]:
        raise SystemExit(f"{', '.join(unknown)}: no such benchmark; there are {', '.join(ALL)}")
    load = os.getloadavg()[0]
    sections: dict[str, str] = {}
    goals: list[tuple[str, Goal]] = []
    for name in names:
        title = " ".join([f"{name}.py", *ALL[name]])
        print(f"\n== {title}", flush=True)
        began = time.monotonic()
        output = run(name, ALL[name])
        print(f"({time.monotonic() - began:.0f} s)", flush=True)
        sections[title] = output
        goals += [(name, goal) for goal in goals_in(output)]
    if names == list(ALL):
        write_results(sections, goals, load)
    for _, goal in goals:
        print(f"{goal.held:7} {goal.what}: {goal.measured} ({goal.bound})")


if __name__ == "__main__":
    main()
