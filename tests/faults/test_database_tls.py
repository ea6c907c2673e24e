"""What is wrong with TLS is told alike by the worker, the ingestion service and the commands, and is not an outage."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest

from asgi_analytics import TimescaleSink
from asgi_analytics.errors import AnalyticsError, OperatorError
from asgi_analytics.migrate import runner
from asgi_analytics.web.ingestion import create_ingestion_app
from tests.kit.databases import PASSWORD, Database
from tests.kit.pgbouncer import PgBouncer
from tests.sinks.contract import line
from tests.web.ingestion.service import event

TOLD = {
    "sslmode=require": "speaks no TLS: take sslmode out of the database URL",
    "ssl=true": "speaks no TLS: take sslmode out of the database URL (or ssl",
    "sslaccept=strict": "speaks no TLS: take sslmode out of the database URL (or ssl, sslaccept",
    "sslrootcert=system": "speaks no TLS",
    "sslmode=verify-full&sslrootcert=/no/such.pem": "cannot be read: correct its path",
    "sslmode=require&sslcert=/no/such.pem": "cannot be read: correct its path",
    "sslmode=verify-full": "name the file by sslrootcert, or use sslrootcert=system",
    "target_session_attrs=bogus": "use any, primary, standby",
    "frobnicate=1": "take that parameter out of the database URL",
}


async def written(url: str) -> None:
    sink = TimescaleSink(url)
    try:
        await sink.write([line()])
    finally:
        await sink.aclose()


async def told(url: str) -> str:
    """Return the error of the sink, which the worker logs; the commands and the service have to say the same."""
    with pytest.raises(OperatorError) as refused:
        await written(url)
    with pytest.raises(AnalyticsError) as failed:
        await runner.status(url)
    assert str(failed.value) == str(refused.value)
    assert PASSWORD not in str(refused.value)
    assert quote(PASSWORD, safe="") not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("query", TOLD)
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_what_the_operator_has_to_mend_names_cause_and_cure_wherever_it_comes_up(
    database: Database,
    query: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # without ~/.postgresql/root.crt
    url = f"{database.dsn}?{query}"
    text = await told(url)
    assert TOLD[query] in text
    app = create_ingestion_app(database_url=url)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://service") as client:
        answer = await client.post("/events/batch", json=[event()])
        assert (answer.status_code, answer.headers["Retry-After"]) == (500, "10")
        assert (await client.get("/ready")).status_code == 503
    await app.state.ingestion.aclose()
    refused = [record for record in caplog.records if record.getMessage() == f"batches are refused: {text}"]
    assert [record.levelno for record in refused] == [logging.ERROR]
    assert f"not ready: {text}" in caplog.messages


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the certificate of a server on 127.0.0.1, signed by itself; its key lies beside it."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: no certificate for a server")
    made = tmp_path_factory.mktemp("certificate") / "server.crt"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", made.with_suffix(".key"), "-out", made),
        ],
        check=True,
        capture_output=True,
    )
    return made


@pytest.fixture
def secure(database: Database, certificate: Path, make_pgbouncer: Callable[..., PgBouncer]) -> PgBouncer:
    """Give a server that speaks TLS: the embedded one does not, so PgBouncer does it for it."""
    return make_pgbouncer(database, certificate=certificate)


on_one = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


@on_one
@pytest.mark.parametrize("query", ["sslmode=require", "ssl=true", "sslmode=no-verify", "sslmode=verify-full"])
async def test_a_server_with_tls_is_written_to(secure: PgBouncer, certificate: Path, query: str) -> None:
    root = f"&sslrootcert={certificate}" if query == "sslmode=verify-full" else ""
    await written(f"{secure.dsn}?{query}{root}")


@on_one
@pytest.mark.parametrize("query", ["sslrootcert=system", "sslmode=require&sslaccept=strict"])
async def test_a_certificate_that_the_system_does_not_trust_is_refused(secure: PgBouncer, query: str) -> None:
    text = await told(f"{secure.dsn}?{query}")
    assert "whose certificate is not trusted" in text
    assert text.endswith("check sslmode and sslrootcert in the database URL")


@on_one
async def test_a_certificate_that_the_system_trusts_is_accepted(
    secure: PgBouncer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    await written(f"{secure.dsn}?sslrootcert=system")


@on_one
async def test_a_file_without_a_certificate_is_refused(secure: PgBouncer, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_text("not a certificate")
    text = await told(f"{secure.dsn}?sslmode=verify-ca&sslrootcert={other}")
    assert "check sslmode and sslrootcert" in text


@on_one
async def test_a_server_that_demands_tls_says_so(secure: PgBouncer) -> None:
    assert "TLS" in await told(f"{secure.dsn}?sslmode=disable")
