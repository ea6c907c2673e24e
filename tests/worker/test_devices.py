"""Devices by their agents: families only, bots marked, bounded."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from asgi_analytics.worker.devices import MOST_AGENTS, Devices

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
CHROME = f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/140.0.0.0 Safari/537.36"
IOS = "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"
IPHONE = f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) {IOS}"
IPAD = f"Mozilla/5.0 (iPad; CPU OS 18_5 like Mac OS X) {IOS}"
PIXEL = f"Mozilla/5.0 (Linux; Android 15; Pixel 9) {WEBKIT} Chrome/140.0.0.0 Mobile Safari/537.36"
GALAXY_TAB = f"Mozilla/5.0 (Linux; Android 14; SM-X710) {WEBKIT} Chrome/140.0.0.0 Safari/537.36"


@pytest.mark.parametrize(
    ("agent", "device_type", "browser", "os"),
    [
        (FIREFOX, "desktop", "Firefox", "Linux"),
        (CHROME, "desktop", "Chrome", "Windows"),
        (IPHONE, "mobile", "Mobile Safari", "iOS"),
        (IPAD, "tablet", "Mobile Safari", "iOS"),
        (PIXEL, "mobile", "Chrome Mobile", "Android"),
        (GALAXY_TAB, "tablet", "Chrome", "Android"),
    ],
)
def test_a_browser(agent: str, device_type: str, browser: str, os: str) -> None:
    assert Devices().device(agent.encode()) == {"device_type": device_type, "browser": browser, "os": os}


@pytest.mark.parametrize(
    "agent",
    [
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
        "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/140.0.0.0 Safari/537.36",
        "curl/8.5.0",
        "python-requests/2.32.3",
        "Go-http-client/1.1",
        "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    ],
)
def test_a_bot_is_marked(agent: str) -> None:
    device = Devices().device(agent.encode())
    assert device is not None
    assert device["device_type"] == "bot"


def test_no_agent_is_no_device() -> None:
    assert Devices().device(b"") is None


def test_without_the_extra_there_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ua_parser", None)
    devices = Devices()
    assert [devices.device(FIREFOX.encode()) for _ in range(3)] == [None] * 3


def test_what_is_known_is_asked_once_and_bounded() -> None:
    asked: list[str] = []

    class Nothing:
        user_agent = os = device = None

    def parse(agent: str) -> Any:
        asked.append(agent)
        return Nothing

    devices = Devices()
    devices._is_loaded, devices._parse = True, parse
    for number in range(3 * MOST_AGENTS):
        devices.device(b"agent %d" % number)
    assert len(devices._known) <= MOST_AGENTS
    asked.clear()
    devices.device(b"agent %d" % (3 * MOST_AGENTS - 1))
    assert asked == []


def test_no_agent_is_kept() -> None:
    devices = Devices()
    devices.device(b"SecretAgent/1.0")
    assert all(len(key) == 16 for key in devices._known)
    assert "Secret" not in str(devices._known)


@pytest.mark.parametrize("agent", [b"\xff\xfe\x00", b"(" * 512, b"Mozilla/5.0 " + b"a" * 500, "é世".encode()])
def test_any_bytes_are_an_agent(agent: bytes) -> None:
    device = Devices().device(agent)
    assert device is not None
    assert set(device) <= {"device_type", "browser", "os"}
