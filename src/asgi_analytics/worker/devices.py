"""Devices: the kind of device, the browser and the system that an agent names; families only, no versions."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Any

from asgi_analytics.log import log_problem

MOST_AGENTS = 4_096
"""How many agents are remembered."""

_BOT = re.compile(
    r"bot\b|bot[/_;-]|crawl|spider|slurp|headless|lighthouse|phantomjs|puppeteer|playwright|selenium"
    r"|^(?:curl|wget|python|go-http|java|okhttp|libwww|ruby|node|axios|httpie|postman|apache-httpclient)",
    re.IGNORECASE,
)
_TABLET = re.compile(r"iPad|Tablet|Kindle|Silk/|PlayBook|Android(?!.*Mobile)", re.IGNORECASE)
_MOBILE = re.compile(r"Mobi|iPhone|iPod|Android|Windows Phone|BlackBerry|Opera Mini", re.IGNORECASE)


class Devices:
    """Tells devices apart by their agents, with ua-parser (extra ``web``); without it no device is told.

    What was told of an agent is remembered by the agent's hash: no agent is kept.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, dict[str, str] | None] = {}
        self._parse: Any = None
        self._is_loaded = False

    def device(self, agent: bytes) -> dict[str, str] | None:
        """Return device_type (desktop, mobile, tablet or bot), browser and os, as far as they are known."""
        if not agent or not self._has_parser():
            return None
        key = blake2b(agent, digest_size=16).digest()
        try:
            return self._known[key]
        except KeyError:
            pass
        if len(self._known) >= MOST_AGENTS:
            self._known.clear()
        device = self._known[key] = self._look(agent.decode("latin-1"))
        return device

    def _has_parser(self) -> bool:
        # PageViews has loaded it already: that takes a fifth of a second, and 34 MiB.
        if not self._is_loaded:
            self._is_loaded = True
            try:
                from ua_parser import parse
            except ImportError:
                log_problem(
                    "devices", "devices are not told: ua-parser is not installed: pip install 'asgi-analytics[web]'"
                )
            else:
                self._parse = parse
        return self._parse is not None

    def _look(self, agent: str) -> dict[str, str]:
        found = self._parse(agent)
        families = {
            "browser": None if found.user_agent is None else found.user_agent.family,
            "os": None if found.os is None else found.os.family,
        }
        device = None if found.device is None else found.device.family
        told = {name: family[:100] for name, family in families.items() if family and family != "Other"}
        return {"device_type": _type_of(agent, device), **told}


def _type_of(agent: str, device: str | None) -> str:
    if device == "Spider" or _BOT.search(agent):
        return "bot"
    if _TABLET.search(agent):
        return "tablet"
    return "mobile" if _MOBILE.search(agent) else "desktop"
