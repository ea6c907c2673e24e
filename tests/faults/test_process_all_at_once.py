"""Everything at once in one process: threads that say and capture, a worker that writes, others that read and flush.

An interpreter without a global lock shows what one with it hides; with it, threads are made to change as often as it
can. Nothing here differs between the two.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from tests.faults.balance import ids_in
from tests.faults.witness import accepted_ids, assert_accounted, run_witnessed
from tests.kit.databases import Database

PROGRAM = """
from asgi_analytics import capture_errors, capture_query
sys.setswitchinterval(1e-6)
THREADS, EVENTS, REQUESTS = 4, 1_000, 250
accepted, refused = [0] * THREADS, [0] * THREADS

def say(which):
    for number in range(EVENTS):
        if client.track(Said(what=f"thread {which}", number=number)):
            accepted[which] += 1
        else:
            refused[which] += 1
        if number % 20 == 0:
            assert not client.track(object())

@capture_query(client, "SELECT", "tasks")
def ask():
    pass

@capture_errors(client)
def fail():
    raise ValueError("on purpose")

async def app(scope, receive, send):
    ask()
    ask()
    if scope["path"] == "/fails":
        fail()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"sold"})

wrapped = AnalyticsMiddleware(app, client=client)

def serve():
    async def request(path):
        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}
        async def send(message):
            pass
        scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": [], "query_string": b""}
        try:
            await wrapped(scope, receive, send)
        except ValueError:
            assert path == "/fails"
    async def requests():
        for number in range(REQUESTS):
            await request("/fails" if number % 10 == 0 else "/works")
    asyncio.run(requests())

over, problems = threading.Event(), []

def watch():
    last = 0
    while not over.is_set():
        stats = client.stats()
        fates = stats.stored + stats.duplicates + stats.rejected.total() + stats.abandoned
        if stats.accepted != fates + stats.queued + stats.in_flight or stats.accepted < last:
            problems.append((last, stats))
        last = stats.accepted
        client.flush(0.01)

def guarded(function, *arguments):
    try:
        function(*arguments)
    except BaseException as error:
        problems.append(error)
        raise

watcher = threading.Thread(target=guarded, args=(watch,))
threads = [threading.Thread(target=guarded, args=(say, which)) for which in range(THREADS)]
threads += [threading.Thread(target=guarded, args=(serve,)) for _ in range(THREADS)]
for thread in [watcher, *threads]:
    thread.start()
for thread in threads:
    thread.join()
over.set()
watcher.join()
assert client.flush(60), client.stats()
assert not problems, problems[:3]
stats = client.stats()
said = THREADS * EVENTS
captured = THREADS * (REQUESTS * 3 + REQUESTS // 10)  # two queries each, and an error of each tenth
assert sum(accepted) + sum(refused) == said
assert stats.dropped["invalid"] == said // 20, stats
assert client._queue.bytes_in == client._queue.bytes_out, "the bytes that wait are no longer known"
"""


async def test_each_event_of_many_threads_is_stored_once_and_ids_rise_in_each_thread(
    database: Database, tmp_path: Path
) -> None:
    run_witnessed(
        "client = make_client(flush_interval=0.02, queue_size=100_000)\n"
        + PROGRAM
        + "assert sum(accepted) == said and stats.accepted == said + captured, (said, captured, stats)\n",
        tmp_path,
        database.dsn,
        timeout=100,
    )
    [stats] = assert_accounted(tmp_path)
    assert stats["stored"] + stats["duplicates"] == stats["accepted"]
    assert set(await ids_in(database)) == accepted_ids(tmp_path)
    connection = await database.connect()
    kinds = await connection.fetch("SELECT event_type, count(*) FROM analytics_events GROUP BY event_type")
    assert dict(map(tuple, kinds)) == {
        "said": 4_000, "api_request": 1_000, "database_query": 2_000, "application_error": 100
    }  # fmt: skip
    said = await connection.fetch(
        "SELECT data->>'what' AS what, id FROM analytics_events WHERE event_type = 'said' "
        "ORDER BY what, (data->>'number')::int"
    )
    falling = [pair for pair in pairwise(said) if pair[0]["what"] == pair[1]["what"] and pair[0]["id"] >= pair[1]["id"]]
    assert not falling, falling[:3]


async def test_each_event_of_many_threads_has_one_fate_when_the_queue_overflows(
    database: Database, tmp_path: Path
) -> None:
    run_witnessed(
        "client = make_client(flush_interval=0.02, queue_size=50, batch_size=10)\n"
        + PROGRAM
        + "assert stats.accepted + stats.dropped['queue_full'] == said + captured, (said, captured, stats)\n"
        "assert stats.dropped['queue_full'] >= sum(refused) > 0, (refused, stats)\n",
        tmp_path,
        database.dsn,
        timeout=100,
    )
    [stats] = assert_accounted(tmp_path)
    assert stats["stored"] + stats["duplicates"] == stats["accepted"]
    assert set(await ids_in(database)) == accepted_ids(tmp_path)
