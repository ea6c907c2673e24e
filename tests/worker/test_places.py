"""Places: a header that is named, or a database of addresses; never a place for what is no address."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from asgi_analytics.worker.places import Places

BERLIN = {
    "country": {"iso_code": "DE", "names": {"en": "Germany"}},
    "subdivisions": [{"iso_code": "BE", "names": {"en": "Land Berlin"}}],
    "city": {"names": {"en": "Berlin", "de": "Berlin"}},
}


class Database:
    """What maxminddb opens."""

    def get(self, address: str) -> Any:
        if not address[:1].isdigit():
            raise ValueError(f"{address!r} is not an address")
        return {"192.0.2.1": BERLIN, "192.0.2.2": {"country": {"iso_code": "FR"}}, "192.0.2.3": {"x": 1}}.get(address)


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.setattr("maxminddb.open_database", lambda path: Database())
    return Places("places.mmdb")


def test_country_region_and_city_of_an_address(places: Places) -> None:
    assert places.place("192.0.2.1", None) == {"country": "DE", "region": "Land Berlin", "city": "Berlin"}
    assert places.place("192.0.2.2", None) == {"country": "FR"}


@pytest.mark.parametrize("address", [None, "", "127.0.0.1", "192.0.2.3", "unix:", "/run/app.sock"])
def test_any_other_address_is_at_no_place(places: Places, address: str | None) -> None:
    assert places.place(address, None) is None


def test_a_header_wins(places: Places) -> None:
    assert places.place("192.0.2.1", b"NL") == {"country": "NL"}
    assert places.place("192.0.2.2", b"XX") == {"country": "FR"}


def test_without_a_database_there_is_no_place() -> None:
    assert Places(None).place("192.0.2.1", None) is None


def test_a_database_that_cannot_be_opened_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "broken.mmdb"
    path.write_text("no database")
    for broken in (str(path), str(tmp_path / "missing.mmdb")):
        places = Places(broken)
        assert [places.place("192.0.2.1", None) for _ in range(3)] == [None] * 3
    assert "192.0.2" not in caplog.text


def test_without_the_extra_there_is_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "maxminddb", None)
    assert Places("places.mmdb").place("192.0.2.1", None) is None
