"""FastAPI: the user from a dependency, templates of included routers, and an exception that is handled and reported.

shows:   AnalyticsMiddleware by add_middleware, set_user in a dependency, client.track_error
needs:   nothing: without ANALYTICS_URL the events stay in memory
install: pip install asgi-analytics fastapi uvicorn
run:     ANALYTICS_URL=postgresql://… uvicorn --app-dir examples fastapi_app:app
see:     curl -H 'x-customer: ann' localhost:8000/v1/orders/7; curl localhost:8000/v1/orders/13; then
         SELECT * FROM analytics_errors_hourly
"""

from __future__ import annotations

import os
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException

from asgi_analytics import AnalyticsClient, AnalyticsMiddleware, set_user

client = AnalyticsClient.from_url(os.environ.get("ANALYTICS_URL", "memory://"), service="orders")


def customer(x_customer: Annotated[str | None, Header()] = None) -> None:
    """Say who asks. It runs in a thread, and the request's event knows it all the same."""
    set_user(x_customer)


orders = APIRouter(prefix="/orders", dependencies=[Depends(customer)])


@orders.get("/{order}")
async def read_order(order: int) -> dict[str, int]:
    try:
        if order == 13:
            raise LookupError("this order has never been there")
    except LookupError as error:
        client.track_error(error, context={"order": order})
        raise HTTPException(404) from error
    return {"order": order}


app = FastAPI(title="Orders")
app.include_router(orders, prefix="/v1")
app.add_middleware(AnalyticsMiddleware, client=client)
