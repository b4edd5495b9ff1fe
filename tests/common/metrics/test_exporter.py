"""The endpoint as a scraper, a prober and a person's browser see it."""

import json
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.parse import urlparse
from urllib.request import Request, urlopen

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
    exporter.show("demo")
    yield exporter
    exporter.close()


def get(exporter: Exporter, path: str, **headers: str) -> tuple[int, str]:
    try:
        with urlopen(Request(exporter.url + path, headers=headers), timeout=PATIENCE_SECONDS) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def scrape(exporter: Exporter) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample of the run `demo` by its name and its other labels' values."""
    code, text = get(exporter, "/metrics")
    assert code == 200
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert {sample.labels.pop("run", "") for sample in samples} == {"demo"}
    return {(sample.name, tuple(sample.labels.values())): sample.value for sample in samples}


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
    assert samples["vapi_driver_events_total", ("actor_lost",)] == 0


def test_a_score_that_was_not_taken_is_not_shown_as_zero(exporter: Exporter, metrics: Metrics) -> None:
    def scores() -> dict[str, float]:
        samples = scrape(exporter).items()
        return {labels[0]: value for (name, labels), value in samples if name == "vapi_evaluation_score"}

    assert scores() == {}
    metrics.set("vapi_evaluation_score", -0.04, score="held_out_reward")
    assert scores() == {"held_out_reward": -0.04}


def test_before_the_run_has_a_folder_the_endpoint_says_so_and_is_healthy(metrics: Metrics) -> None:
    exporter = Exporter(metrics, ANY_PORT)
    try:
        said = (503, '{"error": "the run has no folder yet"}\n')
        assert (get(exporter, "/metrics"), get(exporter, "/")) == (said, said)
        assert get(exporter, "/healthz")[0] == 200
    finally:
        exporter.close()


def test_a_scrape_of_some_metrics_by_name_has_those_alone(exporter: Exporter) -> None:
    text = get(exporter, "/metrics?name[]=vapi_learner_step")[1]
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert samples == ['vapi_learner_step{run="demo"} 0.0']


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
    assert get(exporter, "/favicon.ico") == (404, '{"error": "this endpoint serves /, /metrics and /healthz"}\n')


def test_a_person_gets_the_page_which_a_thread_of_the_server_makes(exporter: Exporter) -> None:
    makers = []

    def page() -> str:
        makers.append(threading.current_thread())
        return "<p>π</p>"

    exporter.show("demo", page)
    assert get(exporter, "/") == (200, "<p>π</p>")
    assert get(exporter, "/", Host="localhost:9464")[0] == 200
    assert threading.main_thread() not in makers


def test_a_page_that_cannot_be_made_is_told_to_the_reader_alone(exporter: Exporter) -> None:
    def page() -> str:
        raise OSError("disk gone")

    exporter.show("demo", page)
    assert get(exporter, "/") == (500, "the report cannot be made: OSError: disk gone\n")
    assert get(exporter, "/metrics")[0] == 200


@pytest.mark.parametrize("host", ["rebound.example.com", "10.0.0.7:9464", "127.0.0.1.example.com", ""])
def test_the_page_is_for_this_machine_alone_and_the_metrics_are_for_all(exporter: Exporter, host: str) -> None:
    exporter.show("demo", lambda: "<p>weights at /shared</p>")
    code, said = get(exporter, "/", Host=host)
    assert code == 403
    assert "for this machine alone: come to localhost, by SSH or kubectl port-forward" in said
    assert get(exporter, "/metrics", Host=host)[0] == 200


def test_a_client_of_another_machine_gets_no_page() -> None:
    at_home = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost:9464"}
    assert exporter_module._is_of_this_machine(at_home)
    assert not exporter_module._is_of_this_machine(at_home | {"REMOTE_ADDR": "10.0.0.9"})


def scraped_at(*seconds: float, monkeypatch: pytest.MonkeyPatch) -> Exporter:
    """An endpoint with a clock that stands at the last of these scrapes."""
    exporter = Exporter(Metrics(), ANY_PORT)
    exporter.show("demo")
    for count, second in enumerate(seconds, start=1):
        stop_clock(second, monkeypatch)
        scrape(exporter)
        with exporter._scraped:  # it is noted after the answer
            noted = exporter._scraped.wait_for(
                lambda count=count: len(exporter._scrapes) == count, PATIENCE_SECONDS
            )
        assert noted
    return exporter


def stop_clock(second: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter_module, "time", SimpleNamespace(monotonic=lambda: second))


def close_in_a_thread(exporter: Exporter) -> threading.Thread:
    closing = threading.Thread(target=exporter.close, daemon=True)
    closing.start()
    return closing


def test_who_scrapes_regularly_learns_how_the_run_ended_before_the_endpoint_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exporter = scraped_at(0, 15, monkeypatch=monkeypatch)
    exporter._metrics.set("vapi_driver_state", 1, state="failed")
    closing = close_in_a_thread(exporter)
    stop_clock(30, monkeypatch)
    assert scrape(exporter)["vapi_driver_state", ("failed",)] == 1
    closing.join(timeout=PATIENCE_SECONDS)
    assert not closing.is_alive()
    with pytest.raises(OSError, match="refused"):
        get(exporter, "/metrics")


@pytest.mark.parametrize("scrapes", [(0,), (0, 15)])
def test_a_scraper_that_came_once_or_has_gone_is_not_waited_for(
    scrapes: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = scraped_at(*scrapes, monkeypatch=monkeypatch)
    stop_clock(100, monkeypatch)
    closing = close_in_a_thread(exporter)
    closing.join(timeout=PATIENCE_SECONDS)
    assert not closing.is_alive()


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
