"""Places: the country that a proxy's header names, or what a database of addresses says."""

from __future__ import annotations

import re
from typing import Any

from asgi_analytics.log import log_problem

_COUNTRY = re.compile(rb"[A-Z]{2}")
_UNKNOWN = (b"XX", b"T1")
"""What Cloudflare says of an unknown country, and of Tor."""

MAX_NAME = 100
"""Characters of the name of a region or a city."""


class Places:
    """Looks up where callers are, in a database in MaxMind's format (extra ``web``), opened at the first look."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._database: Any = None

    def place(self, address: str | None, country: bytes | None) -> dict[str, str] | None:
        """Return country (two letters), region and city, as far as they are known; a header wins."""
        if country is not None:
            code = country.strip().upper()
            if _COUNTRY.fullmatch(code) and code not in _UNKNOWN:
                return {"country": code.decode()}
        if self._path is None or address is None or not self._is_open():
            return None
        try:
            found = self._database.get(address)
        except ValueError:  # what is no address, such as the path of a socket
            return None
        return _names(found) if isinstance(found, dict) else None

    def _is_open(self) -> bool:
        if self._database is None:
            path, self._path = self._path, None
            try:
                import maxminddb

                self._database = maxminddb.open_database(str(path))
            except ImportError:
                log_problem(
                    "places", "places are not told: maxminddb is not installed: pip install 'asgi-analytics[web]'"
                )
                return False
            except Exception as error:  # an OSError, or what maxminddb says of another format
                log_problem("places", "places are not told: geoip_database cannot be opened: %s", type(error).__name__)
                return False
            self._path = path
        return True


def _names(found: dict[str, Any]) -> dict[str, str] | None:
    country = found.get("country")
    code = country.get("iso_code") if isinstance(country, dict) else None
    if not isinstance(code, str):
        return None
    place = {"country": code}
    regions = found.get("subdivisions")
    region = regions[0] if isinstance(regions, list) and regions else None
    for name, part in (("region", region), ("city", found.get("city"))):
        names = part.get("names") if isinstance(part, dict) else None
        text = names.get("en") if isinstance(names, dict) else None
        if isinstance(text, str):
            place[name] = text[:MAX_NAME]
    return place
