"""Forks: parent and child deliver their own events, each once, and leave each other alone."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.kit.scripts import PROLOGUE, arrived, run_script

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
quiet = "import warnings; warnings.filterwarnings('ignore', category=DeprecationWarning, message='.*fork.*')\n"


@forks
def test_parent_and_child_of_a_fork_deliver_their_own_once(tmp_path: Path) -> None:
    run_script(
        quiet
        + """
client = AnalyticsClient.from_url(f"file://{sys.argv[1]}", service="shop", flush_interval=3600)
for number in range(3):
    client.track(said(f"before {number}"))  # the parent's, and still in its queue
child = os.fork()
for number in range(3):
    client.track(said(f"{'parent' if child else 'child'} {number}"))
assert client.stats().accepted == (6 if child else 3)
if child:
    assert os.waitpid(child, 0)[1] == 0
assert client.flush(10)
""",
        tmp_path / "events",
    )
    expected = [f"{who} {number}" for who in ("before", "child", "parent") for number in range(3)]
    assert arrived(tmp_path / "events") == expected


@forks
def test_a_fork_in_the_middle_of_a_write_stores_nothing_twice(tmp_path: Path) -> None:
    run_script(
        quiet
        + """
FileSink.slow = 0.2
client = AnalyticsClient.from_url(f"file://{sys.argv[1]}", service="shop", batch_size=1)
client.track(said("before"))
while not client.stats().in_flight:
    time.sleep(0.001)
child = os.fork()
if not child:
    assert client.stats().in_flight == client.stats().queued == 0
    client.track(said("child"))
else:
    os.waitpid(child, 0)
""",
        tmp_path / "events",
    )
    assert arrived(tmp_path / "events") == ["before", "child"]


@forks
def test_children_of_a_fork_with_threads_tracking_neither_hang_nor_lose(tmp_path: Path) -> None:
    run_script(
        quiet
        + """
client = AnalyticsClient.from_url(f"file://{sys.argv[1]}", service="shop", batch_size=5, queue_size=1_000_000)
stop = threading.Event()
tracked = [0, 0]
def track(which):
    while not stop.is_set():
        client.track(said("thread"))
        client.stats()
        tracked[which] += 1
threads = [threading.Thread(target=track, args=(which,)) for which in range(2)]
for thread in threads:
    thread.start()
children = []
for number in range(10):
    child = os.fork()
    if not child:
        client.track(said(f"child {number}"))
        assert client.close(20)
        os._exit(0)
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
assert client.close(20)
with open(sys.argv[1] + ".tracked", "w") as file:
    file.write(str(sum(tracked)))
""",
        tmp_path / "events",
    )
    said = Counter(arrived(tmp_path / "events"))
    assert said.pop("thread") == int((tmp_path / "events.tracked").read_text())
    assert said == {f"child {number}": 1 for number in range(10)}


@forks
def test_a_fork_of_a_process_that_was_closed_starts_anew(tmp_path: Path) -> None:
    run_script(
        quiet
        + """
client = AnalyticsClient.from_url(f"file://{sys.argv[1]}", service="shop")
client.track(said("parent"))
assert client.close(10)
child = os.fork()
if not child:
    assert client.track(said("child"))
else:
    os.waitpid(child, 0)
    assert not client.track(said("too late"))
""",
        tmp_path / "events",
    )
    assert arrived(tmp_path / "events") == ["child", "parent"]


@forks
def test_a_grandchild_delivers_too(tmp_path: Path) -> None:
    run_script(
        quiet
        + """
client = AnalyticsClient.from_url(f"file://{sys.argv[1]}", service="shop")
client.track(said("1"))
for generation in "23":
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        break
    client.track(said(generation))
""",
        tmp_path / "events",
    )
    assert arrived(tmp_path / "events") == ["1", "2", "3"]


@forks
def test_a_worker_of_the_applications_own_serves_the_child_of_a_fork(tmp_path: Path) -> None:
    run_script(
        quiet
        + """
client = AnalyticsClient(service="shop")
async def serve(what):
    async with AnalyticsWorker(client, FileSink(sys.argv[1])):
        client.track(said(what))
asyncio.run(serve("before"))
client.track(said("parent"))
child = os.fork()
if not child:
    asyncio.run(serve("child"))
else:
    assert os.waitpid(child, 0)[1] == 0
    asyncio.run(serve("after"))
""",
        tmp_path / "events",
    )
    assert arrived(tmp_path / "events") == ["after", "before", "child", "parent"]


@forks
def test_a_fork_leaves_the_loop_and_the_connections_of_the_parent_alone(tmp_path: Path) -> None:
    run_script(
        quiet
        + """
client = AnalyticsClient.from_url(f"file://{sys.argv[1]}", service="shop")
client.track(said("before"))
assert client.flush(10)
loop, sink = client._delivery.host._loop, client.sink
child = os.fork()
if not child:
    assert client.sink is not sink
    import gc
    gc.collect()
    client.track(said("child"))
    assert client.flush(10)
    assert client._delivery.host._loop is not loop
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
client.track(said("after"))
assert client.flush(10)  # the parent's loop is still woken by its own selector
assert (client.sink, client._delivery.host._loop) == (sink, loop)
""",
        tmp_path / "events",
    )
    assert arrived(tmp_path / "events") == ["after", "before", "child"]


@pytest.mark.parametrize(
    "method", [pytest.param("fork", marks=forks), "spawn", pytest.param("forkserver", marks=forks)]
)
def test_the_children_of_multiprocessing_deliver_before_they_end(tmp_path: Path, method: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        PROLOGUE
        + quiet
        + """
import multiprocessing
client = AnalyticsClient.from_url(f"file://{sys.argv[1]}", service="shop")
def work(number):
    client.track(said(f"child {number}"))
    client.track(said(f"child {number} again"))
if __name__ == "__main__":
    client.track(said("parent"))
    context = multiprocessing.get_context(sys.argv[2])
    children = [context.Process(target=work, args=(number,)) for number in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
        assert child.exitcode == 0
"""
    )
    run_script(
        f"import runpy; sys.argv[:] = sys.argv[1:]; runpy.run_path({str(program)!r}, run_name='__main__')",
        program,
        tmp_path / "events",
        method,
    )
    expected = ["child 0", "child 0 again", "child 1", "child 1 again", "parent"]
    assert arrived(tmp_path / "events") == expected
