"""What the middleware costs a real server: requests per second and latencies of uvicorn under wrk.

Compares a Starlette application as it is, with AnalyticsMiddleware (its worker writing to a real database: DATABASE_URL
where that is set, else one that the tests would find), and with the peers that are installed. Each variant is a server
process of its own, and a new one in each round, for two processes of the same differ by some per cent. Rounds are
interleaved; medians count.

Run:   python benchmarks/uvicorn_wrk.py [--seconds 5] [--rounds 7]
Needs: wrk (apt install wrk), uvicorn, starlette; httptools and uvloop make it the uvicorn that people run;
       for the peers see middleware.py
Goals: at least 0.80 of the bare requests per second with nothing written, 0.65 with the database on the same two cores.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import middleware as peers
from benchmarks.goals import at_least
from benchmarks.storing import SETTINGS


def analytics(app: Any) -> Any:
    from asgi_analytics import AnalyticsClient, AnalyticsMiddleware

    client = AnalyticsClient.from_url(os.environ["DATABASE_URL"], service="shop", queue_size=200_000)
    return AnalyticsMiddleware(app, client=client, user_id=lambda scope: peers.USER)


def analytics_to_nowhere(app: Any) -> Any:
    """The same, but the worker throws away what it would have written: what the process itself costs, no database."""
    from asgi_analytics.sinks.base import Receipt

    async def write(batch: Any) -> Receipt:
        return Receipt()

    middleware = analytics(app)
    middleware.client.sink.write = write
    return middleware


VARIANTS: dict[str, tuple[Any, str | None]] = {
    "bare": (peers.bare, None),
    "asgi-analytics": (analytics, None),
    "asgi-analytics, nothing written": (analytics_to_nowhere, None),
    **{name: (make, module) for name, (make, module, _) in peers.PEERS.items() if module is not None},
}


def serve(name: str, port: int) -> None:
    import uvicorn

    uvicorn.run(VARIANTS[name][0](peers.starlette_app()), port=port, log_level="error", access_log=False)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    for _ in range(400):
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.05)
    raise SystemExit("a server did not come up")


def wrk(port: int, seconds: int) -> tuple[float, float]:
    """Return the requests per second, and the 99th percentile in milliseconds."""
    url = f"http://127.0.0.1:{port}/shops/7/lamps/8"
    command = ["wrk", "-t1", "-c32", f"-d{seconds}s", "--latency", url]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in told:
        raise SystemExit(told)
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", told)[1])  # type: ignore[index]
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", told).groups()  # type: ignore[union-attr]
    return rate, float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], int(options.serve[1]))
        return
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt install wrk")
    if os.environ.get("DATABASE_URL"):
        measure(options.seconds, options.rounds)
        return
    from tests.kit.servers import Servers

    databases = Servers()
    try:
        cluster = databases.private(databases.available[-1], SETTINGS)
        os.environ["DATABASE_URL"] = cluster.dsn(cluster.template())
        print(cluster.version)
        measure(options.seconds, options.rounds)
    finally:
        databases.close()


def measure(seconds: int, rounds: int) -> None:
    names = [name for name, (_, module) in VARIANTS.items() if peers.installed(module)]
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[:: 1 if number % 2 else -1]:
            port = free_port()
            server = subprocess.Popen([sys.executable, __file__, "--serve", name, str(port)])
            try:
                wait_for(port)
                wrk(port, 1)
                measured[name].append(wrk(port, seconds))
            finally:
                server.terminate()  # a worker writes what is left
                server.wait()
    print(f"\nuvicorn, 32 connections, medians of {rounds} rounds of {seconds} s\n")
    print("| | requests/s | from | to | × bare | p99 ms | × bare |\n|---|---|---|---|---|---|---|")
    rates = {name: statistics.median(rate for rate, _ in values) for name, values in measured.items()}
    tails = {name: statistics.median(tail for _, tail in values) for name, values in measured.items()}
    for name, values in measured.items():
        least, most = min(rate for rate, _ in values), max(rate for rate, _ in values)
        print(
            f"| {name} | {rates[name]:.0f} | {least:.0f} | {most:.0f} | {rates[name] / rates['bare']:.2f} "
            f"| {tails[name]:.2f} | {tails[name] / tails['bare']:.2f} |"
        )
    for name, bound in (("asgi-analytics, nothing written", 0.80), ("asgi-analytics", 0.65)):
        at_least(f"uvicorn's requests a second, of the bare ones: {name}", rates[name] / rates["bare"], bound)


if __name__ == "__main__":
    main()
