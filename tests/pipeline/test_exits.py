"""The end of a process: what was tracked before, and in the course of it, arrives."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.scripts import arrived, run_script


def test_a_script_that_just_ends_loses_nothing(tmp_path: Path) -> None:
    output = run_script(
        """
        client = AnalyticsClient.from_url(f"file://{sys.argv[1]}", service="shop")
        for number in range(250):
            client.track(said(f"{number:03}"))
        """,
        tmp_path / "events",
    )
    assert arrived(tmp_path / "events") == [f"{number:03}" for number in range(250)]
    assert output == ""


@pytest.mark.parametrize(
    "end",
    [
        "sys.exit(0)",
        "raise SystemExit",
        "threading.Thread(target=sys.exit).start()",
        "import atexit; atexit.register(lambda: client.track(said('last')))",
        "threading.Thread(target=lambda: (time.sleep(0.05), client.track(said('last')))).start()",
        "threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()",
        "import weakref; weakref.finalize(ID, lambda: client.track(said('last')))",
    ],
)
def test_however_a_process_ends_what_was_tracked_arrives(tmp_path: Path, end: str) -> None:
    run_script(
        f"""
        client = AnalyticsClient.from_url(f"file://{{sys.argv[1]}}", service="shop")
        client.track(said("first"))
        {end}
        """,
        tmp_path / "events",
    )
    assert arrived(tmp_path / "events") == (["first", "last"] if "last" in end else ["first"])


def test_an_exception_that_ends_the_process_loses_nothing(tmp_path: Path) -> None:
    output = run_script(
        """
        client = AnalyticsClient.from_url(f"file://{sys.argv[1]}", service="shop")
        client.track(said("first"))
        raise KeyError("the application's own")
        """,
        tmp_path / "events",
        check=False,
    )
    assert "KeyError" in output
    assert arrived(tmp_path / "events") == ["first"]


def test_a_first_event_at_exit_arrives_though_no_thread_may_start(tmp_path: Path) -> None:
    run_script(
        """
        import _thread, atexit
        client = AnalyticsClient.from_url(f"file://{sys.argv[1]}", service="shop")
        def last():
            def refuse(*_):
                raise RuntimeError("can't create new thread at interpreter shutdown")
            _thread.start_new_thread = refuse
            assert client.track(said("last"))
        atexit.register(last)
        """,
        tmp_path / "events",
    )
    assert arrived(tmp_path / "events") == ["last"]


def test_an_exit_with_the_sink_away_takes_close_timeout_and_says_what_is_lost(tmp_path: Path) -> None:
    output = run_script(
        """
        FileSink.slow = 3600
        client = AnalyticsClient.from_url(f"file://{sys.argv[1]}", service="shop", close_timeout=0.2)
        client.track(said("lost"))
        """,
        tmp_path / "events",
        timeout=20,
    )
    assert "abandoned: 1" in output
    assert "Traceback" not in output


def test_an_application_owned_worker_that_was_stopped_leaves_no_trace_at_exit(tmp_path: Path) -> None:
    output = run_script(
        """
        client = AnalyticsClient(service="shop")
        async def main():
            task = asyncio.create_task(AnalyticsWorker(client, FileSink(sys.argv[1])).run())
            client.track(said("first"))
            await asyncio.sleep(0)
        for _ in range(3):
            asyncio.run(main())
        """,
        tmp_path / "events",
    )
    assert arrived(tmp_path / "events") == ["first"] * 3
    assert output == ""
