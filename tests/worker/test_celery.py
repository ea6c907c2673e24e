"""A real Celery worker, and children of billiard: what they track is written before they end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.kit.scripts import arrived, run_script

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Celery's prefork pool needs fork")

# Celery and billiard leave warnings of their own behind, which run_script() makes errors of.
QUIET = "import warnings; warnings.simplefilter('ignore')\n"


def test_a_process_of_the_prefork_pool_delivers_before_it_ends(tmp_path: Path) -> None:
    run_script(
        QUIET
        + """
from pathlib import Path
from celery import Celery
from celery.signals import worker_ready

folder = Path(sys.argv[1])
client = AnalyticsClient.from_url(f"file://{folder / 'events'}", service="shop", flush_interval=3600)
app = Celery("shop", broker="memory://")
app.conf.worker_hijack_root_logger = False

@app.task(name="work")
def work(number):
    client.track(said(f"task {number}"))
    (folder / f"done-{number}").touch()

def stop_when_done():
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and len(list(folder.glob("done-*"))) < 3:
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)

@worker_ready.connect
def send(**_):
    client.track(said("main"))
    for number in range(3):
        work.delay(number)
    threading.Thread(target=stop_when_done).start()

options = ["--pool=prefork", "--concurrency=1", "--without-gossip", "--without-mingle", "--without-heartbeat"]
try:
    app.worker_main(["worker", "--loglevel=WARNING", *options])
except SystemExit:
    pass
""",
        tmp_path,
        cwd=tmp_path,
    )
    assert arrived(tmp_path / "events") == ["main", "task 0", "task 1", "task 2"]


def test_a_child_of_billiard_delivers_before_it_ends(tmp_path: Path) -> None:
    run_script(
        QUIET
        + """
import billiard

client = AnalyticsClient.from_url(f"file://{sys.argv[1]}", service="shop", flush_interval=3600)

def work():
    client.track(said("child"))

child = billiard.Process(target=work)
child.start()
child.join(30)
assert child.exitcode == 0
""",
        tmp_path / "events",
    )
    assert arrived(tmp_path / "events") == ["child"]
