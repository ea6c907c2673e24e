"""What the middleware costs a real server: requests per second and latencies of uvicorn under wrk.

Compares a Starlette application as it is, with AnalyticsMiddleware (its worker running, and writing to DATABASE_URL
where that is set, else to memory), and with the peers that are installed. Each variant is a server process of its own;
rounds are interleaved; medians count.

Run:   python benchmarks/uvicorn_wrk.py [--seconds 5] [--rounds 5]
Needs: wrk (apt install wrk), uvicorn, starlette; httptools and uvloop make it the uvicorn that people run;
       for the peers see middleware.py
Goals: at least 0.85 of the bare requests per second; p99 at most 1.3 times that of the bare application.
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

sys.path.insert(0, str(Path(__file__).parent))

import middleware as peers


def analytics(app: Any) -> Any:
    from asgi_analytics import AnalyticsClient, AnalyticsMiddleware

    url = os.environ.get("DATABASE_URL", "memory://")
    client = AnalyticsClient.from_url(url, service="shop", queue_size=200_000, flush_interval=1.0)
    if url.startswith("memory"):
        from asgi_analytics.sinks.base import Receipt

        class Nowhere:
            async def write(self, batch: Any) -> Receipt:
                return Receipt()

            async def aclose(self) -> None:
                pass

        client._host.sink = Nowhere()  # type: ignore[union-attr]  # a MemorySink would grow without end
    return AnalyticsMiddleware(app, client=client, user_id=lambda scope: peers.USER)


VARIANTS: dict[str, tuple[Any, str | None]] = {
    "bare": (peers.bare, None),
    "asgi-analytics": (analytics, None),
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
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], int(options.serve[1]))
        return
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt install wrk")
    names = [name for name, (_, module) in VARIANTS.items() if peers.installed(module)]
    ports = {name: free_port() for name in names}
    servers = [subprocess.Popen([sys.executable, __file__, "--serve", name, str(ports[name])]) for name in names]
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    try:
        for port in ports.values():
            wait_for(port)
            wrk(port, 1)
        for _ in range(options.rounds):
            for name in names:
                measured[name].append(wrk(ports[name], options.seconds))
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait()
    sink = "PostgreSQL" if os.environ.get("DATABASE_URL") else "nowhere"
    print(f"\nuvicorn, 32 connections, medians of {options.rounds} rounds of {options.seconds} s; events go {sink}\n")
    print(f"{'':36}{'requests/s':>12}{'× bare':>9}{'p99 ms':>9}{'× bare':>9}")
    rates = {name: statistics.median(rate for rate, _ in values) for name, values in measured.items()}
    tails = {name: statistics.median(tail for _, tail in values) for name, values in measured.items()}
    for name in names:
        print(
            f"{name:36}{rates[name]:12.0f}{rates[name] / rates['bare']:9.2f}"
            f"{tails[name]:9.2f}{tails[name] / tails['bare']:9.2f}"
        )


if __name__ == "__main__":
    main()
