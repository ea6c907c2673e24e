"""A shop behind a server: it tracks as many events as are bought, and writes down what became of them at its end."""

from __future__ import annotations

from pathlib import Path

from tests.faults.witness import PROLOGUE, environment
from tests.kit.fakes import until
from tests.kit.serving import Serving

SHOP = """
import contextlib
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def buy(request):
    for number in range(int(request.query_params["number"])):
        assert client.track(Said(what="bought", number=number))
    return PlainTextResponse("ok")

@contextlib.asynccontextmanager
async def lifespan(app):
    (witness.folder / f"started-{os.getpid()}").touch()
    yield

shop = Starlette(routes=[Route("/buy", buy)], lifespan=lifespan)
shop.add_middleware(AnalyticsMiddleware, client=client)
app = witness.of_lifespan(shop)
"""


class Shop(Serving):
    """A server of the shop; ``making`` is the code that makes its ``client``, and ``more`` its environment."""

    def __init__(self, folder: Path, dsn: str, making: str, *command: str, **more: str) -> None:
        super().__init__(folder, PROLOGUE + making + SHOP, *command, environ=environment(folder, dsn, **more))

    def buy(self, number: int) -> bool:
        """Have so many events tracked by one request; tell whether it was answered."""
        return self.get(f"/buy?number={number}")

    def until_started(self, number: int) -> None:
        """Return when so many processes have begun their lifespan since the start; those that have ended count too."""
        until(lambda: len(list(self.folder.glob("started-*"))) == number, 30)
