"""The description at ``/openapi.json`` is what the service does: schemathesis tries to find a difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from asgi_analytics.sinks.base import Receipt
from asgi_analytics.web.ingestion import create_ingestion_app
from tests.web.described import try_all
from tests.web.ingestion.service import client

schemathesis: Any = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
from schemathesis.specs.openapi.checks import (  # noqa: E402  # after the line that may skip
    negative_data_rejection,
    positive_data_acceptance,
)

# Both ask of a status what is told of each event: an array with one wrong event in it is 200, and one whose events
# are right but too old is 422.
JUDGED_ONE_BY_ONE = [negative_data_rejection, positive_data_acceptance]


class Takes:
    """A sink that takes everything."""

    tells_duplicates = True

    async def write(self, batch: Sequence[bytes]) -> Receipt:
        return Receipt(0, (), [])

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize("tokens", [[], ["t0ken"]])
def test_it_does_what_the_description_says(tokens: list[str]) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_ingestion_app(sink=Takes(), tokens=tokens))
    headers = {"Authorization": "Bearer t0ken"}

    def matches(case: Any) -> None:
        case.call_and_validate(excluded_checks=JUDGED_ONE_BY_ONE, headers=headers)

    assert try_all(schema, matches, 20) == set(schema.raw_schema["paths"])


async def test_every_status_is_described_with_its_limits() -> None:
    app = create_ingestion_app(sink=Takes(), tokens=["t"], max_body_bytes=123, max_events=45, body_timeout=6)
    async with client(app) as http:
        document = (await http.get("/openapi.json")).json()
    post = document["paths"]["/events/batch"]["post"]
    assert set(post["responses"]) == {"200", "400", "401", "408", "413", "415", "422", "500", "503"}
    assert "123" in post["responses"]["413"]["description"]
    assert post["requestBody"]["content"]["application/json"]["schema"]["maxItems"] == 45
    assert post["security"] == [{"token": []}]
