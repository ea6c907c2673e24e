"""The statement that finds the furthest attempt of each user, or session, at a series of steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain, combinations
from typing import Any, Literal

import msgspec

from asgi_analytics.database.sqlite.times import to_text
from asgi_analytics.errors import InvalidQuery
from asgi_analytics.reading.sqlite_attempts import EXCLUDED, Plan
from asgi_analytics.reading.sqlite_functions import microseconds
from asgi_analytics.reading.sqlite_values import MICROSECOND
from asgi_analytics.reading.statements import Dialect, Statements
from asgi_analytics.reading.steps import Parameters, Step, filters, parameters_of, text_of

SQL = Statements("attempts")

Order = Literal["ordered", "strict", "unordered"]
By = Literal["user", "session"]
Attribution = Literal["first_touch", "last_touch"]

CAPTURED = ("api_request", "database_query", "application_error", "page_engaged")
"""Types of what is no step of a visit: neither tracked nor a page view."""
TOUCHED: dict[Attribution, str] = {
    "first_touch": "h.at = t.started_at AND h.step = 1",
    "last_touch": "h.at = t.reached_at AND h.step = t.furthest",
}
"""Which hits are the first or last event of an attempt; the one of the lowest id counts."""
TOUCHED_IN_ANY_ORDER: dict[Attribution, str] = {
    "first_touch": "h.at = t.started_at AND h.step > 0",
    "last_touch": "h.at = t.reached_at AND h.step > 0",
}
MOST_VALUES = 100
"""Of a breakdown."""
MOST_ALIKE = 6
"""Different steps of one type, in any order: what one event of them leaves to the others is looked at for each set."""


class Matcher(msgspec.Struct, frozen=True):
    """What finds events, with the number it gives them: those of any of some steps, which are of one type."""

    number: int
    steps: tuple[Step, ...]

    @property
    def is_conditional(self) -> bool:
        """Whether it finds only some events of its type."""
        return all(step.where for step in self.steps)


class Need(msgspec.Struct, frozen=True):
    """A part of what it takes to reach a step in any order: so many events of a matcher."""

    step: int
    matcher: int
    needed: int


class Attempts(msgspec.Struct, frozen=True):
    """What is looked for."""

    steps: list[Step]
    exclusions: list[Step]
    window: timedelta
    """From the first step to the last one, both included."""
    order: Order
    by: By
    service: str | None
    environment: str | None

    def summary(
        self,
        dialect: Dialect,
        start: datetime,
        end: datetime,
        now: datetime,
        breakdown: str | None,
        attribution: Attribution,
    ) -> tuple[str, list[Any]]:
        """Return the statement that counts attempts, and its parameters: of all, then of each value of ``breakdown``.

        Attempts begin from ``start`` on and before ``end``. Raises `InvalidQuery`.
        """
        parameters, blocks = parameters_of(dialect), SQL.blocks(dialect)
        value = parameters.null("text") if breakdown is None else text_of("breakdown", breakdown, parameters)
        found = self._found(parameters, start, end, value, attribution)
        if dialect == "sqlite":
            found.append(blocks["labelled"].format(most_values=parameters.add(MOST_VALUES, "bigint")))
        elif breakdown is None:
            found += [blocks["taken"], blocks["without_values"]]
        else:
            touched = TOUCHED[attribution] if self.order != "unordered" else TOUCHED_IN_ANY_ORDER[attribution]
            most_values = parameters.add(MOST_VALUES, "bigint")
            found += [blocks["taken"], blocks["with_values"].format(touched=touched, most_values=most_values)]
        summary = blocks["summary"].format(
            count=parameters.add(len(self.steps), "integer"),
            window=parameters.add(self.window, "interval"),
            now=parameters.add(now, "timestamptz"),
            has_values=parameters.add(breakdown is not None, "boolean"),
        )
        return _with(found, summary), parameters.values

    def conversions(
        self, dialect: Dialect, start: datetime, end: datetime, at_least: int, at_most: int, limit: int | None
    ) -> tuple[str, list[Any]]:
        """Return the statement that lists attempts that came to a step from ``at_least`` to ``at_most``."""
        parameters = parameters_of(dialect)
        found = self._found(parameters, start, end, parameters.null("text"), "first_touch")
        rows = SQL.blocks(dialect)["users" if self.by == "user" else "sessions"].format(
            count=parameters.add(len(self.steps), "integer"),
            at_least=parameters.add(at_least, "integer"),
            at_most=parameters.add(at_most, "integer"),
            limit=parameters.add(limit, "bigint"),
        )
        return _with(found, rows), parameters.values

    def _found(
        self, parameters: Parameters, start: datetime, end: datetime, value: str, attribution: Attribution
    ) -> list[str]:
        """Return the tables of the statement, down to ``attempts``."""
        blocks = SQL.blocks(parameters.dialect)
        names = {
            "since": parameters.add(start, "timestamptz"),
            "until": parameters.add(end, "timestamptz"),
            "window": parameters.add(self.window, "interval"),
        }
        if parameters.dialect == "sqlite":
            names["end"] = parameters.add(end + self.window, "timestamptz")
        needs: list[Need] = []
        if self.order == "unordered":
            matchers, needs = _in_any_order(self.steps)
        else:
            matchers = [Matcher(number, (step,)) for number, step in enumerate(self.steps, 1)]
        excluded = [Matcher(EXCLUDED, (step,)) for step in self.exclusions]
        found = blocks["hits_by_user" if self.by == "user" else "hits_by_session"].format(
            step=self._step([*matchers, *excluded], parameters),
            value=value,
            conditions=" AND ".join(self._conditions([*matchers, *excluded], parameters)),
            **names,
        )
        if parameters.dialect == "sqlite":
            plan = Plan(
                until=microseconds(to_text(end)) or 0,
                window=self.window // MICROSECOND,
                pauses=[] if self.order == "unordered" else _pauses(self.steps),
                needs=[(need.step, need.matcher, need.needed) for need in needs],
                first_touch=attribution == "first_touch",
            )
            text = parameters.add(msgspec.json.encode(plan).decode(), "text")
            return [found, blocks["attempts"].format(plan=text)]
        arrays = [_array(matcher.number) for matcher in matchers] + [_array(EXCLUDED)]
        if self.order == "unordered":
            return [found, _best_window(needs, names, arrays)]
        arrays[0] = _array(1, f"AND h.at < {names['until']}")
        return [found, _best_attempt(self.steps, names, arrays)]

    def _step(self, matchers: Sequence[Matcher], parameters: Parameters) -> str:
        """Return the expression for the numbers of the matchers that find a row ``e``, a row for each."""
        numbers = _numbers(matchers, parameters)
        if parameters.dialect == "sqlite":
            captured = parameters.is_any_text("e.event_type", list(CAPTURED)) if self.order == "strict" else "1"
            return f"json_array(CASE WHEN NOT {captured} THEN {EXCLUDED} END, json({numbers}))"
        if self.order == "strict":
            captured = parameters.add(list(CAPTURED), "text[]")
            return f"unnest(CASE WHEN e.event_type <> ALL ({captured}) THEN ARRAY[{EXCLUDED}] END || {numbers})"
        return f"unnest({numbers})"

    def _conditions(self, matchers: Sequence[Matcher], parameters: Parameters) -> Iterator[str]:
        types = sorted({step.event_type for matcher in matchers for step in matcher.steps})
        is_step = parameters.is_any_text("e.event_type", types)
        if self.order == "strict":
            yield f"({is_step} OR NOT {parameters.is_any_text('e.event_type', list(CAPTURED))})"
        else:
            yield is_step
        if self.service is not None:
            yield f"e.service = {parameters.add(self.service, 'text')}"
        if self.environment is not None:
            yield f"{parameters.environment()} = {parameters.add(self.environment, 'text')}"


def _with(tables: Iterable[str], rows: str) -> str:
    return f"WITH {', '.join(tables)} {rows}"


def _array(number: int, condition: str = "") -> str:
    return f"array_agg(h.at ORDER BY h.at) FILTER (WHERE h.step = {number} {condition}) AS hits_{number}"


def _pauses(steps: Sequence[Step]) -> list[int]:
    """Return how many microseconds later than the step before each one has to come.

    A step whose type stood in an earlier one would take its event again, if it came at the same instant.
    """
    return [int(step.event_type in {one.event_type for one in steps[:number]}) for number, step in enumerate(steps)]


def _best_attempt(steps: Sequence[Step], names: Mapping[str, str], arrays: Sequence[str]) -> str:
    """Return the tables that find attempts in the order of the steps: forth to the last one, and back."""
    last_first = range(len(steps), 0, -1)
    started_at = f"coalesce({', '.join(f'reached_{number}.started[1]' for number in last_first)})"
    forth = []
    blocks = SQL.blocks("postgresql")
    for number, microseconds_later in enumerate(_pauses(steps)[1:], 2):
        pause = f"INTERVAL '{microseconds_later} microseconds'"
        forth.append(blocks["forth"].format(step=number, before=number - 1, pause=pause, window=names["window"]))
    back = []
    for number in last_first:
        next_at = f"taken_{number + 1}.at" if number < len(steps) else "NULL::timestamptz"
        back.append(blocks["back"].format(step=number, next_at=next_at, started_at=started_at))
    return blocks["ordered"].format(
        arrays=", ".join(arrays),
        started_at=started_at,
        reached_at=f"coalesce({', '.join(f'reached_{number}.at[1]' for number in last_first)})",
        furthest=" + ".join(f"(reached_{number}.at IS NOT NULL)::integer" for number in last_first),
        times=", ".join(f"taken_{number}.at" for number in range(1, len(steps) + 1)),
        forth="\n".join(forth),
        back="\n".join(back),
    )


def _best_window(needs: Sequence[Need], names: Mapping[str, str], arrays: Sequence[str]) -> str:
    """Return the tables that find attempts in any order: for each start when each step would be reached."""
    ends: dict[int, list[str]] = {}
    for need in needs:
        hits = f"a.hits_{need.matcher}"
        found = f"{hits}[width_bucket(s.at - INTERVAL '1 microsecond', {hits}) + {need.needed}]"
        ends.setdefault(need.step, []).append(f"coalesce({found}, 'infinity')")
    return SQL.blocks("postgresql")["unordered"].format(
        until=names["until"],
        window=names["window"],
        arrays=", ".join(arrays),
        ends=", ".join(f"greatest({', '.join(found)}) AS at_{step}" for step, found in ends.items()),
        times=", ".join(f"e.at_{step}" for step in ends),
        furthest=" + ".join(f"(e.at_{step} <= s.until)::integer" for step in ends),
        reached_at=f"greatest({', '.join(f'CASE WHEN e.at_{step} <= s.until THEN e.at_{step} END' for step in ends)})",
    )


def _numbers(matchers: Sequence[Matcher], parameters: Parameters) -> str:
    """Return the expression for the numbers of the matchers that find a row ``e``, as an array."""
    of_type: dict[str, list[Matcher]] = {}
    for matcher in matchers:
        of_type.setdefault(matcher.steps[0].event_type, []).append(matcher)
    cases = []
    for event_type, alike in of_type.items():
        numbers = [_number(matcher, parameters) for matcher in alike]
        array = f"ARRAY[{', '.join(numbers)}]"
        if parameters.dialect == "sqlite":
            array = f"json_array({', '.join(numbers)})"
        elif not all(number.isdigit() for number in numbers):
            array = f"array_remove({array}, NULL)"
        cases.append(f"WHEN {parameters.add(event_type, 'text')} THEN {array}")
    return f"CASE e.event_type {' '.join(cases)} END"


def _number(matcher: Matcher, parameters: Parameters) -> str:
    field = "exclusions" if matcher.number == EXCLUDED else "steps"
    if not matcher.is_conditional:
        return str(matcher.number)
    either = [f"({' AND '.join(filters(field, step, parameters))})" for step in matcher.steps]
    return f"CASE WHEN {' OR '.join(either)} THEN {matcher.number} END"


def _in_any_order(steps: Sequence[Step]) -> tuple[list[Matcher], list[Need]]:
    """Return what finds events for steps in any order, and what it takes to reach a step.

    Steps of one type may be filled by the same events, of which each fills one. By Hall's theorem n of them can be
    filled as soon as there are, for each set of k of all m steps, n - (m - k) events that fill one of the set.
    """
    matchers: list[Matcher] = []
    needs: list[Need] = []
    reached = 0
    for event_type in dict.fromkeys(step.event_type for step in steps):
        alike = [step for step in steps if step.event_type == event_type]
        kinds: dict[bytes, list[Step]] = {}
        for step in alike:
            kinds.setdefault(msgspec.json.encode(step.where), []).append(step)
        if len(kinds) > MOST_ALIKE:
            raise InvalidQuery("steps", f"has more than {MOST_ALIKE} different steps of one type in any order")
        sets = chain.from_iterable(combinations(kinds.values(), size) for size in range(1, len(kinds) + 1))
        for chosen in sets:
            number = len(matchers) + 1
            matchers.append(Matcher(number, tuple(same[0] for same in chosen)))
            size = sum(map(len, chosen))
            for count in range(1, len(alike) + 1):
                needed = count - (len(alike) - size)
                if needed > 0:
                    needs.append(Need(reached + count, number, needed))
        reached += len(alike)
    return matchers, needs
