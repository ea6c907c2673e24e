"""The settings: checked when a client is made, and read from an environment."""

from __future__ import annotations

import math
import os
from typing import Any

import pytest

from asgi_analytics import AnalyticsClient, MemorySink, events
from asgi_analytics.config import VARIABLES, Settings
from asgi_analytics.errors import ConfigError, MissingExtra
from asgi_analytics.testing import capture_events

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("setting", "wrong"),
    [
        ("service", ""),
        ("service", "  "),
        ("service", None),
        ("environment", 7),
        ("hash_key", ""),
        ("hash_key", b""),
        ("hash_key", 7),
        ("hash_key", "\ud800"),
        ("keep_personal_data", "yes"),
        ("batch_size", 0),
        ("batch_size", 1.5),
        ("batch_size", True),
        ("batch_size", "100"),
        ("queue_size", 0),
        ("queue_bytes", -1),
        ("max_event_bytes", 0),
        ("flush_interval", -0.1),
        ("flush_interval", math.inf),
        ("flush_interval", math.nan),
        ("flush_interval", "10"),
        ("close_timeout", -1),
        ("close_timeout", None),
        ("before_track", "redact"),
        ("enabled", 1),
        ("strict", None),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name_when_the_client_is_made(setting: str, wrong: Any) -> None:
    with pytest.raises(ConfigError, match=setting):
        AnalyticsClient(**{"service": "shop", setting: wrong})
    with pytest.raises(ConfigError, match=setting):
        AnalyticsClient.from_url("memory://", **{"service": "shop", setting: wrong})


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(TypeError, match="batchsize"):
        AnalyticsClient(service="shop", batchsize=1)  # type: ignore[call-arg]


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = AnalyticsClient(service="shop").settings
    assert settings == Settings(
        service="shop",
        environment=None,
        hash_key=None,
        keep_personal_data=False,
        batch_size=100,
        flush_interval=10.0,
        queue_size=10_000,
        queue_bytes=64 * 1024 * 1024,
        max_event_bytes=256 * 1024,
        close_timeout=10.0,
        before_track=None,
        enabled=True,
        strict=False,
    )


def test_settings_do_not_show_their_key() -> None:
    settings = AnalyticsClient(service="shop", hash_key=SECRET).settings
    assert SECRET not in repr(settings)
    assert "batch_size=100" in repr(settings)


def test_every_setting_has_a_variable_but_the_function() -> None:
    assert {name for name, _ in VARIABLES.values()} == {*Settings.__struct_fields__, "url", "token"} - {"before_track"}
    assert all(variable == f"ANALYTICS_{name.upper()}" for variable, (name, _) in VARIABLES.items())


def test_an_environment_sets_all_there_is() -> None:
    client = AnalyticsClient.from_environ(
        {
            "ANALYTICS_URL": "memory://",
            "ANALYTICS_TOKEN": "t",
            "ANALYTICS_SERVICE": "shop",
            "ANALYTICS_ENVIRONMENT": "staging",
            "ANALYTICS_HASH_KEY": SECRET,
            "ANALYTICS_KEEP_PERSONAL_DATA": "yes",
            "ANALYTICS_BATCH_SIZE": " 7 ",
            "ANALYTICS_FLUSH_INTERVAL": "0.5",
            "ANALYTICS_QUEUE_SIZE": "8",
            "ANALYTICS_QUEUE_BYTES": "2 MiB",
            "ANALYTICS_MAX_EVENT_BYTES": "3KiB",
            "ANALYTICS_CLOSE_TIMEOUT": "1",
            "ANALYTICS_ENABLED": "off",
            "ANALYTICS_STRICT": "TRUE",
            "PATH": "/bin",
        }
    )
    assert isinstance(client.sink, MemorySink)
    assert client.settings == Settings(
        service="shop",
        environment="staging",
        hash_key=SECRET,
        keep_personal_data=True,
        batch_size=7,
        flush_interval=0.5,
        queue_size=8,
        queue_bytes=2 * 1024 * 1024,
        max_event_bytes=3 * 1024,
        close_timeout=1.0,
        enabled=False,
        strict=True,
    )


def test_without_a_url_the_application_brings_the_worker() -> None:
    client = AnalyticsClient.from_environ({"ANALYTICS_SERVICE": "shop", "ANALYTICS_TOKEN": "t"})
    assert client.sink is None


def test_arguments_win_over_variables_and_empty_ones_count_as_not_set() -> None:
    environ = {"ANALYTICS_SERVICE": "shop", "ANALYTICS_BATCH_SIZE": "7", "ANALYTICS_QUEUE_SIZE": ""}
    settings = AnalyticsClient.from_environ(environ, batch_size=9).settings
    assert (settings.batch_size, settings.queue_size) == (9, 10_000)


def test_the_process_has_an_environment_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANALYTICS_SERVICE", "from the process")
    assert AnalyticsClient.from_environ().settings.service == "from the process"


def test_a_service_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="ANALYTICS_SERVICE is not set"):
        AnalyticsClient.from_environ({})


@pytest.mark.parametrize(
    "variable",
    sorted(v for v, (name, read) in VARIABLES.items() if read is not str),
)
def test_a_variable_that_cannot_be_read_is_named_and_not_repeated(variable: str) -> None:
    with pytest.raises(ConfigError, match=f"^{variable}: expected ") as caught:
        AnalyticsClient.from_environ({"ANALYTICS_SERVICE": "shop", variable: SECRET})
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("ANALYTICS_SERVICE", " "),
        ("ANALYTICS_BATCH_SIZE", "0"),
        ("ANALYTICS_FLUSH_INTERVAL", "nan"),
        ("ANALYTICS_CLOSE_TIMEOUT", "-1"),
    ],
)
def test_a_variable_with_a_value_out_of_range_is_named(variable: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"^{variable}: .*(expected|: )"):
        AnalyticsClient.from_environ({"ANALYTICS_SERVICE": "shop", variable: text})


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("ANALYTICS_BATCHSIZE", "ANALYTICS_BATCH_SIZE"),
        ("ANALYTICS_SERVICE_NAME", "ANALYTICS_SERVICE"),
        ("ANALYTICS_ENV", "ANALYTICS_ENVIRONMENT"),
        ("ANALYTICS_TOKN", "ANALYTICS_TOKEN"),
    ],
)
def test_a_variable_that_looks_misspelt_is_warned_about_and_its_value_not_shown(
    variable: str, meant: str, caplog: pytest.LogCaptureFixture
) -> None:
    AnalyticsClient.from_environ({"ANALYTICS_SERVICE": "shop", variable: SECRET})
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == f"the variable {variable} is unknown and ignored; did you mean {meant}?"


def test_variables_of_other_programs_and_of_the_services_are_no_misspellings(
    caplog: pytest.LogCaptureFixture,
) -> None:
    others = dict.fromkeys(("ANALYTICS_ID", "ANALYTICS_TOKENS", "ANALYTICS_READ_TOKENS", "BATCHSIZE"), SECRET)
    AnalyticsClient.from_environ({"ANALYTICS_SERVICE": "shop", **others})
    assert caplog.messages == []


@pytest.mark.parametrize("url", [None, 5, b"postgresql://db/shop"])
def test_what_is_no_text_is_no_url(url: Any) -> None:
    with pytest.raises(ConfigError, match="not a str: is the variable set that should hold it"):
        AnalyticsClient.from_url(url, service="shop")


def test_a_url_may_end_with_a_line_break() -> None:
    assert isinstance(AnalyticsClient.from_url(" memory://\n", service="shop").sink, MemorySink)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop",
        f"mysql://shop:{SECRET}@db/shop",
        f"postgresql://shop:{SECRET}@db:port/shop",
        f"postgresql://shop:{SECRET}/x@db/shop",
        f"postgresql://shop:12/{SECRET}@db/shop",
        f"postgresql://shop:12#{SECRET}@db/shop",
        f"postgresql://shop:{SECRET}@[::1/shop",
        f"{SECRET}:x@db/shop",
        f"//shop:{SECRET}@db",
    ],
)
def test_a_wrong_url_is_refused_with_what_to_do_and_never_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        AnalyticsClient.from_url(url, service="shop")
    assert "://" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "url",
    ["postgresql://shop:secret@db/shop", "postgres://db/shop", "postgresql+asyncpg://db:5433/shop", "MEMORY://"],
)
def test_a_url_that_can_be_served_connects_to_nothing_yet(url: str) -> None:
    client = AnalyticsClient.from_url(url, service="shop")
    assert client.sink is not None
    assert client.close(0)


def test_a_missing_extra_names_the_pip_install() -> None:
    error = MissingExtra("httpx2", "http")
    assert isinstance(error, ConfigError)
    assert isinstance(error, ImportError)
    assert "pip install 'asgi-analytics[http]'" in str(error)


def test_a_key_whose_variable_is_no_utf8_is_the_bytes_that_were_set() -> None:
    given = b"\xff\xfe key"
    event = events.AuthLoginAttempt(email="ada@example.org", success=True)
    stored = []
    for key in (given, os.fsdecode(given)):
        with capture_events(service="shop", hash_key=key) as captured:
            captured.client.track(event)
        stored.append(captured.events[0].data["email"])
    assert stored[0] == stored[1]
