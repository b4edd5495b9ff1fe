"""The endpoint as a scraper and a prober see it."""

import json
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.parse import urlparse
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from common.config.service import MetricsSection
from common.errors import ClusterError
from common.metrics import exporter as exporter_module
from common.metrics.catalogue import CATALOGUE
from common.metrics.exporter import Exporter, Metrics

PATIENCE_SECONDS = 10
ANY_PORT = MetricsSection(port=0)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def exporter(metrics: Metrics) -> Iterator[Exporter]:
    exporter = Exporter(metrics, ANY_PORT)
    yield exporter
    exporter.close()


def get(exporter: Exporter, path: str) -> tuple[int, str]:
    try:
        with urlopen(exporter.url + path, timeout=PATIENCE_SECONDS) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def scrape(exporter: Exporter) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample by its name and label values."""
    code, text = get(exporter, "/metrics")
    assert code == 200
    families = text_string_to_metric_families(text)
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_counters_gauges_and_histograms_are_scraped_as_they_were_measured(
    exporter: Exporter, metrics: Metrics
) -> None:
    metrics.add("vapi_actors_groups_total", 8)
    metrics.add("vapi_actors_groups_total", 8)
    metrics.add("vapi_buffer_dropped_groups_total", 3, reason="stale")
    metrics.set("vapi_learner_step", 4)
    metrics.set("vapi_learner_step", 5)
    metrics.set("vapi_learner_reward", -0.25, term="mse")
    metrics.observe("vapi_learner_wait_seconds", 0.02)
    metrics.observe("vapi_learner_wait_seconds", 3)
    samples = scrape(exporter)
    assert samples["vapi_actors_groups_total", ()] == 16
    assert samples["vapi_buffer_dropped_groups_total", ("stale",)] == 3
    assert samples["vapi_learner_step", ()] == 5
    assert samples["vapi_learner_reward", ("mse",)] == -0.25
    assert samples["vapi_learner_wait_seconds_sum", ()] == pytest.approx(3.02)
    assert samples["vapi_learner_wait_seconds_bucket", ("0.025",)] == 1
    assert samples["vapi_learner_wait_seconds_bucket", ("5.0",)] == 2


def test_every_metric_of_the_catalogue_is_exposed_with_its_kind_and_nothing_else_is(exporter: Exporter) -> None:
    _, text = get(exporter, "/metrics")
    kinds = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE"))
    named = {name: kind for name, kind in kinds.items() if not name.endswith("_created")}
    assert named == {metric.name: metric.kind for metric in CATALOGUE}


def test_what_has_not_happened_reads_as_zero(exporter: Exporter) -> None:
    samples = scrape(exporter)
    assert samples["vapi_buffer_dropped_groups_total", ("stale",)] == 0
    assert samples["vapi_learner_loss", ("kl",)] == 0
    assert samples["vapi_actors_stage_seconds_count", ("decode",)] == 0


def test_two_registries_do_not_share_their_numbers(exporter: Exporter) -> None:
    Metrics().set("vapi_learner_step", 9)
    assert scrape(exporter)["vapi_learner_step", ()] == 0


def test_a_metric_that_is_not_in_the_catalogue_cannot_be_measured(metrics: Metrics) -> None:
    with pytest.raises(KeyError):
        metrics.add("vapi_learner_hopes_total")


def test_health_says_what_the_driver_is_doing(exporter: Exporter) -> None:
    code, body = get(exporter, "/healthz")
    assert (code, json.loads(body)["status"]) == (200, "starting")
    exporter.beat("training, 3 of 8 tickets learned")
    health = json.loads(get(exporter, "/healthz")[1])
    assert health["healthy"] is True
    assert health["status"] == "training, 3 of 8 tickets learned"


def test_a_silent_driver_is_unhealthy_until_it_beats_again(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(monotonic=lambda: 1000.0)
    monkeypatch.setattr(exporter_module, "time", clock)
    exporter.beat("scoring")
    clock.monotonic = lambda: 1000.0 + exporter_module.HEALTHY_SECONDS + 1
    code, body = get(exporter, "/healthz")
    assert code == 503
    assert json.loads(body) == {"healthy": False, "status": "scoring", "seconds_since_beat": 121.0}
    exporter.beat("training")
    assert get(exporter, "/healthz")[0] == 200


def test_other_paths_say_what_is_served(exporter: Exporter) -> None:
    assert get(exporter, "/") == (404, '{"error": "this endpoint serves /metrics and /healthz"}\n')


def test_a_client_that_connects_and_says_nothing_does_not_block_the_others(exporter: Exporter) -> None:
    with socket.create_connection(("127.0.0.1", urlparse(exporter.url).port or 0)):
        assert get(exporter, "/healthz")[0] == 200


def test_a_taken_port_is_refused_with_the_key_to_change(exporter: Exporter) -> None:
    port = urlparse(exporter.url).port
    with pytest.raises(ClusterError) as caught:
        Exporter(Metrics(), MetricsSection(port=port or 0))
    assert str(caught.value) == (
        f"metrics cannot be served on 127.0.0.1:{port} (Address already in use): set metrics.port to another "
        "port, or to 0 for any free one"
    )


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ClusterError, match=r"metrics cannot be served on 192\.0\.2\.1:0"):
        Exporter(Metrics(), MetricsSection(host="192.0.2.1", port=0))  # an address kept for documentation


def test_a_closed_endpoint_gives_its_port_back() -> None:
    first = Exporter(Metrics(), ANY_PORT)
    first.close()
    second = Exporter(Metrics(), MetricsSection(port=urlparse(first.url).port or 0))
    second.close()
    assert second.url == first.url
