"""Visitors: one key a day, and visits that midnight does not cut, in one process and over several."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from random import Random

from asgi_analytics.encoding.caller import Caller
from asgi_analytics.worker.visitors import OwnKeys, Visitors

MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HALF_HOUR = 30 * MINUTE


def caller(moment: datetime, address: str = "10.0.0.1", **more: bool) -> Caller:
    time = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
    return Caller(time, address, b"agent", b"host", None, more.get("is_followed", True))


class Shared:
    """What workers share: keys, and who was seen at midnight."""

    def __init__(self) -> None:
        self.keys = OwnKeys()
        self.seen: dict[str, datetime] = {}


class Worker:
    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.visitors = Visitors()

    def names(self, callers: Sequence[Caller]) -> list[str | None]:
        for day in self.visitors.missing_days(callers):
            self.visitors.learn(day, self.shared.keys.key(day))
        asked = self.visitors.unsure(callers)
        seen = self.shared.seen
        found = {one for one, moment in asked.items() if one in seen and seen[one] >= moment - HALF_HOUR}
        names, noted = self.visitors.decide(callers, found)
        for one, moment in noted.items():
            seen[one] = max(moment, seen.get(one, moment))
        return names

    def name(self, moment: datetime, address: str = "10.0.0.1") -> str | None:
        return self.names([caller(moment, address)])[0]


def test_a_visitor_has_another_name_each_day() -> None:
    worker = Worker(Shared())
    noons = [MIDNIGHT + timedelta(days=day, hours=12) for day in range(4)]
    names = [(worker.name(noon), worker.name(noon + timedelta(hours=5))) for noon in noons]
    assert all(first == second for first, second in names)
    assert len(set(names)) == 4


def test_midnight_cuts_no_visit() -> None:
    worker = Worker(Shared())
    name = worker.name(MIDNIGHT - 10 * MINUTE)
    for minutes in range(10, 300, 20):  # a long visit, with never more than half an hour of silence
        assert worker.name(MIDNIGHT + minutes * MINUTE) == name
    after = worker.name(MIDNIGHT + timedelta(hours=8))
    assert after != name
    assert worker.name(MIDNIGHT + timedelta(hours=9)) == after


def test_silence_of_half_an_hour_goes_on_and_more_does_not() -> None:
    for is_shared in (True, False):
        for silence, goes_on in ((HALF_HOUR, True), (HALF_HOUR + timedelta(microseconds=1), False)):
            worker = Worker(Shared())
            first = worker.name(MIDNIGHT - 5 * MINUTE)
            if not is_shared:
                worker.shared.seen.clear()
            assert (worker.name(MIDNIGHT - 5 * MINUTE + silence) == first) is goes_on


def test_a_visit_goes_on_in_another_process() -> None:
    shared = Shared()
    one, other, third = Worker(shared), Worker(shared), Worker(shared)
    name = one.name(MIDNIGHT - 10 * MINUTE)
    assert other.name(MIDNIGHT + 10 * MINUTE) == name
    assert third.name(MIDNIGHT + 35 * MINUTE) == name
    assert one.name(MIDNIGHT + 60 * MINUTE) == name
    assert other.name(MIDNIGHT + timedelta(hours=3)) != name


def test_both_sides_of_midnight_in_one_batch() -> None:
    before, after = Worker(Shared()).names([caller(MIDNIGHT - MINUTE), caller(MIDNIGHT + MINUTE)])
    assert before == after is not None


def test_who_comes_first_after_midnight_is_named_by_the_new_day() -> None:
    shared = Shared()
    assert Worker(shared).name(MIDNIGHT + MINUTE) == Worker(shared).name(MIDNIGHT + timedelta(hours=20))


def test_who_has_no_address_or_is_not_followed_has_no_name() -> None:
    worker = Worker(Shared())
    assert worker.names([caller(MIDNIGHT, ""), caller(MIDNIGHT, is_followed=False)]) == [None, None]


def test_a_day_without_a_key_has_no_visitors() -> None:
    visitors = Visitors()
    assert visitors.decide([caller(MIDNIGHT)]) == ([None], {})
    visitors.learn(date(2026, 11, 21), b"k")
    assert visitors.decide([caller(MIDNIGHT)])[0] != [None]


def test_old_keys_are_forgotten() -> None:
    keys = OwnKeys()
    first = keys.key(date(2026, 11, 1))
    assert keys.key(date(2026, 11, 1)) == first
    keys.key(date(2026, 11, 9))
    assert keys.key(date(2026, 11, 1)) != first


def test_random_visits_over_several_processes() -> None:
    """Each visit has one name; two visits have one name only if they began on one day."""
    random = Random(7)
    shared = Shared()
    workers = [Worker(shared) for _ in range(3)]
    calls: list[tuple[datetime, str, int]] = []
    began: dict[int, tuple[str, date]] = {}
    visit = 0
    for number in range(30):
        address = f"10.0.0.{number}"
        moment = MIDNIGHT - timedelta(hours=5) + timedelta(minutes=random.uniform(0, 600))
        while moment < MIDNIGHT + timedelta(hours=12):
            visit += 1
            began[visit] = (address, moment.date())
            for _ in range(random.randrange(1, 12)):
                calls.append((moment, address, visit))
                moment += timedelta(minutes=random.uniform(0, 30))
            moment += timedelta(minutes=random.uniform(31, 200))
    names: dict[int, set[str | None]] = {}
    for moment, address, visit in sorted(calls):
        names.setdefault(visit, set()).add(random.choice(workers).name(moment, address))
    assert all(len(one) == 1 for one in names.values())
    by_name: dict[str | None, set[tuple[str, date]]] = {}
    for visit, [name] in names.items():
        by_name.setdefault(name, set()).add(began[visit])
    assert all(len(one) == 1 for one in by_name.values())
    assert len(by_name) == len(set(began.values()))
