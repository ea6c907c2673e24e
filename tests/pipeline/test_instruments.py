"""The pipeline's own figures as OpenTelemetry metrics, with a real SDK."""

from __future__ import annotations

import json

from tests.kit.scripts import run_script

READ = """
import json
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

def read(reader):
    found = {}
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            assert scope.scope.name == "asgi_analytics"
            for metric in scope.metrics:
                kind = "sum" if hasattr(metric.data, "is_monotonic") else "gauge"
                found[metric.name] = [kind, metric.unit, [
                    [dict(point.attributes), point.value] for point in metric.data.data_points
                ]]
    return found

class Refusing:
    async def write(self, batch):
        from asgi_analytics.sinks.base import Rejected
        return Receipt(duplicates=1, rejected=[Rejected(0, "too_deep")])
    async def aclose(self):
        pass
"""


def test_the_figures_are_metrics_whether_the_sdk_comes_before_or_after_the_client() -> None:
    output = run_script(
        READ
        + """
one = AnalyticsClient(service="shop", queue_size=10)
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
two = AnalyticsClient(service="shop", queue_size=3)
other = AnalyticsClient(service="bank")
for client, number in ((one, 4), (two, 5), (other, 1)):
    for _ in range(number):
        client.track(said("hello"))
other.track("nonsense")

async def write():
    async with AnalyticsWorker(one, Refusing()):
        pass
asyncio.run(write())
print(json.dumps(read(reader)), flush=True)
os._exit(0)
"""
    )
    found = json.loads(output.splitlines()[-1])
    for name, (kind, unit, _) in found.items():
        is_gauge = name.rpartition(".")[2] in ("queued", "in_flight", "spooled", "oldest_seconds")
        assert kind == ("gauge" if is_gauge else "sum")
        assert unit in ("{event}", "{write}", "s")

    def value(name: str, **attributes: str) -> float:
        points = found[f"analytics.events.{name}"][2]
        [number] = [number for held, number in points if held == attributes]
        assert isinstance(number, int | float)
        return number

    assert value("accepted", service="shop") == 7  # clients of one service are one series
    assert value("accepted", service="bank") == 1
    assert value("dropped", service="shop", reason="queue_full") == 2
    assert value("dropped", service="bank", reason="invalid") == 1
    assert value("dropped", service="bank", reason="closed") == 0
    assert value("stored", service="shop") == 2
    assert value("duplicates", service="shop") == 1
    assert value("rejected", service="shop", reason="too_deep") == 1
    assert value("batches", service="shop") == 1
    assert value("retries", service="shop") == value("abandoned", service="shop") == 0
    assert value("queued", service="shop") == 3
    assert value("in_flight", service="shop") == 0
    assert 0 < value("oldest_seconds", service="bank") < 60


def test_a_counter_does_not_go_back_when_clients_are_collected() -> None:
    output = run_script(
        READ
        + """
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
import gc
seen = []
for number in range(5):
    client = AnalyticsClient(service="shop", queue_size=3)
    for _ in range(4):
        client.track(said("hello"))
    client.track("nonsense")
    if number % 2:
        client.close(0)
    seen.append(read(reader))
    del client
    gc.collect()
    seen.append(read(reader))
child = os.fork() if hasattr(os, "fork") else 0
if child:
    assert os.waitpid(child, 0)[1] == 0
elif hasattr(os, "fork"):
    if reader.get_metrics_data():
        [[_, number]] = read(reader)["analytics.events.accepted"][2]
        assert number == 0
    os._exit(0)
print(json.dumps(seen), flush=True)
os._exit(0)
"""
    )
    seen = json.loads(output.splitlines()[-1])

    def values(name: str, **attributes: str) -> list[float]:
        return [number for found in seen for held, number in found[f"analytics.events.{name}"][2] if held == attributes]

    assert values("accepted", service="shop") == [3, 3, 6, 6, 9, 9, 12, 12, 15, 15]
    assert values("abandoned", service="shop") == [0, 0, 3, 3, 3, 3, 6, 6, 6, 6]
    assert values("dropped", service="shop", reason="queue_full") == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert values("dropped", service="shop", reason="invalid") == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_without_an_sdk_there_is_nothing_to_pay_for() -> None:
    run_script(
        """
        client = AnalyticsClient.from_url("memory://", service="shop")
        client.track(said("hello"))
        assert client.flush(10)
        assert not any(name.startswith("opentelemetry.sdk") for name in sys.modules)
        """
    )
