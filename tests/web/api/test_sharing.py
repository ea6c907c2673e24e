"""What a question costs: asked once for all, kept while fresh, cancelled when nobody waits, and few run at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from asgi_analytics.web.api.answers import AT_ONCE, ENTRY, Answer, Answers
from asgi_analytics.web.api.refusals import Refusal
from tests.kit.databases import Database
from tests.kit.fakes import eventually
from tests.web.api.service import Process, asking, fill, locked


class Asked:
    """A question that waits for `go`, and counts."""

    def __init__(self, content: bytes = b"answer", keep: float = 0) -> None:
        self.content = content
        self.keep = keep
        self.begun = self.ended = self.cancelled = 0
        self.go = asyncio.Event()

    async def __call__(self) -> Answer:
        self.begun += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.ended += 1
        answer = Answer()
        answer.write(self.content)
        return answer.end(self.keep)


async def content(answer: Answer) -> bytes:
    return b"".join([piece async for piece in answer.pieces()])


async def begun(answers: Answers, key: bytes, make: Callable[[], Awaitable[Answer]]) -> asyncio.Task[Answer]:
    task = asyncio.create_task(answers.get(key, make))
    await asyncio.sleep(0.01)
    return task


async def test_equal_questions_that_are_asked_at_once_run_once() -> None:
    answers, asked, other = Answers(), Asked(), Asked(b"other")
    tasks = [await begun(answers, b"a", asked) for _ in range(10)]
    different = await begun(answers, b"b", other)
    asked.go.set()
    other.go.set()
    assert {await content(await task) for task in tasks} == {b"answer"}
    assert await content(await different) == b"other"
    assert (asked.begun, other.begun) == (1, 1)
    await answers.get(b"a", asked)
    assert asked.begun == 2  # an answer that may change at once is not kept


async def test_an_answer_is_given_again_while_it_is_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("asgi_analytics.web.api.answers.time.monotonic", lambda: now)
    answers, asked = Answers(), Asked(keep=10)
    asked.go.set()
    first = await answers.get(b"a", asked)
    now = 109.9
    assert await answers.get(b"a", asked) is first
    now = 110.0
    assert await answers.get(b"a", asked) is not first
    assert asked.begun == 2


async def test_after_a_change_nothing_from_before_is_given() -> None:
    answers, kept, before, after = Answers(), Asked(b"kept", 10), Asked(b"before", 10), Asked(b"after", 10)
    kept.go.set()
    await answers.get(b"a", kept)
    running = await begun(answers, b"b", before)
    answers.forget()
    await answers.get(b"a", kept)
    assert kept.begun == 2
    # Who asked before the change gets what was known then; who asks now does not join them.
    asked_since = await begun(answers, b"b", after)
    after.go.set()
    assert await content(await asked_since) == b"after"
    before.go.set()
    assert await content(await running) == b"before"
    assert await content(await answers.get(b"b", after)) == b"after"
    assert (before.begun, after.begun) == (1, 1)


async def test_what_is_kept_is_bounded_in_bytes_and_the_least_used_goes_first() -> None:
    answers = Answers(most_kept=4 * (ENTRY + 1001))
    asked = {bytes([n]): Asked(b"x" * 1000, keep=60) for n in range(5)}
    for one in asked.values():
        one.go.set()
    for key in (b"\0", b"\1", b"\2", b"\3", b"\0", b"\4"):
        await answers.get(key, asked[key])
    await answers.get(b"\0", asked[b"\0"])
    assert asked[b"\0"].begun == 1
    await answers.get(b"\1", asked[b"\1"])
    assert asked[b"\1"].begun == 2
    large = Asked(b"x" * 3000, keep=60)
    large.go.set()
    await answers.get(b"large", large)
    await answers.get(b"large", large)
    assert large.begun == 2  # it would push all others out


async def test_a_question_is_cancelled_when_the_last_who_waits_has_left() -> None:
    answers, asked = Answers(), Asked()
    first, second = await begun(answers, b"a", asked), await begun(answers, b"a", asked)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert asked.cancelled == 0
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert asked.cancelled == 1
    asked.go.set()
    assert await content(await answers.get(b"a", asked)) == b"answer"


async def test_an_error_reaches_all_who_wait_and_is_not_kept() -> None:
    answers = Answers()
    calls = 0

    async def fail() -> Answer:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.05)
        raise ValueError("reason")

    tasks = [await begun(answers, b"a", fail) for _ in range(3)]
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in found] == [ValueError] * 3
    with pytest.raises(ValueError, match="reason"):
        await answers.get(b"a", fail)
    assert calls == 2


async def test_four_questions_run_at_once_and_the_fifth_waits_or_is_refused() -> None:
    answers = Answers(patience=0.2)
    running = [Asked() for _ in range(AT_ONCE)]
    tasks = [await begun(answers, bytes([n]), one) for n, one in enumerate(running)]
    fifth = Asked()
    fifth.go.set()
    with pytest.raises(Refusal) as refused:
        await answers.get(b"fifth", fifth)
    assert (refused.value.status, refused.value.code) == (503, "too_many_questions")
    assert refused.value.headers == {"Retry-After": "5"}
    assert fifth.begun == 0
    waiting = await begun(answers, b"fifth", fifth)
    running[0].go.set()
    assert await content(await waiting) == b"answer"
    for one in running:
        one.go.set()
    await asyncio.gather(*tasks)


async def leave(process: Process, path: str) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("127.0.0.1", process.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    await writer.drain()
    return writer


async def count(database: Database, number: int) -> None:
    """Return when so many statements hang in the server."""
    for _ in range(500):
        if await asking(database) == number:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{await asking(database)} statements hang, not {number}")


@pytest.mark.on_servers("lets questions hang by a lock, which a file has not")
@pytest.mark.parametrize("path", ["/events", "/events?format=csv", "/errors?format=csv"])
async def test_the_query_of_a_caller_who_leaves_is_cancelled_in_the_server(database: Database, path: str) -> None:
    with Process(database.dsn) as process:
        async with locked(database):
            first, second = await leave(process, path), await leave(process, path)
            await count(database, 2 if path == "/events?format=csv" else 1)
            first.close()
            await asyncio.sleep(0.3)
            await count(database, 1)  # the other one still waits
            second.close()
            await count(database, 0)
        await eventually(lambda: process.log.count(" 499 ") == 2)


@pytest.mark.on_servers("lets questions hang by a lock, which a file has not")
async def test_many_equal_questions_are_one_in_the_server_and_others_wait_for_their_turn(database: Database) -> None:
    await fill(database, 50)
    with Process(database.dsn) as process:
        async with process.client() as http:
            async with locked(database):
                same = [asyncio.create_task(http.get("/queries/slow")) for _ in range(20)]
                await count(database, 1)
                others = [asyncio.create_task(http.get(f"/queries/slow?limit={n}")) for n in range(1, 9)]
                await count(database, AT_ONCE)
                await asyncio.sleep(0.3)
                await count(database, AT_ONCE)
                assert (await http.get("/health")).status_code == 200
                assert (await http.get("/openapi.json")).status_code == 200
            answers = await asyncio.gather(*same, *others)
        assert {one.status_code for one in answers} == {200}
        assert len({one.content for one in answers[:20]}) == 1


@pytest.mark.on_servers("lets questions hang by a lock, which a file has not")
async def test_a_question_that_waits_too_long_for_its_turn_is_told_when_to_come_again(database: Database) -> None:
    with Process(database.dsn, "--statement-timeout", "60") as process:
        async with process.client() as http, locked(database):
            tasks = [asyncio.create_task(http.get(f"/queries/slow?limit={n}")) for n in range(1, AT_ONCE + 1)]
            await count(database, AT_ONCE)
            refused = await http.get("/queries/slow?limit=9")
            assert (refused.status_code, refused.json()["code"]) == (503, "too_many_questions")
            assert int(refused.headers["retry-after"]) > 0
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await count(database, 0)
