"""The driver's HTTP endpoint: /metrics for Prometheus, /healthz for probes, / for people."""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address
from socketserver import ThreadingMixIn
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.metrics_core import Metric as Family

from common.config.service import MetricsSection
from common.errors import ClusterError
from common.metrics.catalogue import CATALOGUE

log = logging.getLogger("vapi.metrics")

HEALTHY_SECONDS = 120.0
"""The driver's loop beats several times per second; a silence this long means that it hangs."""
LAST_SCRAPE_SECONDS = 60.0
"""The longest wait at the end of a run for a scraper that came regularly."""

Environ = dict[str, str]


class Metrics:
    """The catalogue's metrics, addressed by name. They have their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        kinds = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
        self._metrics = {
            metric.name: kinds[metric.kind](
                metric.name,
                metric.help,
                (metric.label,) if metric.label else (),
                registry=self.registry,
                **({"buckets": metric.buckets} if metric.buckets else {}),
            )
            for metric in CATALOGUE
        }
        for metric in CATALOGUE:
            for value in metric.values if metric.from_start else ():
                self._metrics[metric.name].labels(value)

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Increment a counter."""
        self._labelled(name, labels).inc(amount)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._labelled(name, labels).set(value)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a value to a histogram."""
        self._labelled(name, labels).observe(value)

    def of_run(self, run: str) -> CollectorRegistry:
        """The same numbers, each series with the label `run`: what is exported."""
        exported = CollectorRegistry(auto_describe=True)  # so that a scrape can ask for some by name
        exported.register(_OfRun(self.registry, run))
        return exported

    def _labelled(self, name: str, labels: dict[str, str]):
        metric = self._metrics[name]
        return metric.labels(**labels) if labels else metric


class _OfRun:
    """A collector: what a registry collects, with one more label."""

    def __init__(self, registry: CollectorRegistry, run: str):
        self._registry = registry
        self._run = run

    def collect(self) -> Iterator[Family]:
        for family in self._registry.collect():
            family.samples = [
                sample._replace(labels={"run": self._run} | sample.labels) for sample in family.samples
            ]
            yield family


class Exporter:
    """Answers from its own threads until it is closed."""

    def __init__(self, metrics: Metrics, section: MetricsSection):
        """Listen at once. Raises ClusterError if the port is taken."""
        self._metrics = metrics
        self._metrics_app: Callable[..., Iterable[bytes]] | None = None
        self._page: Callable[[], str] | None = None
        self._last_beat = time.monotonic()
        self._scrapes: deque[float] = deque(maxlen=2)
        self._scraped = threading.Condition()
        self.status = "starting"
        try:
            self._server = make_server(section.host, section.port, self._serve, _Server, _Quiet)
        except OSError as error:
            raise ClusterError(
                f"metrics cannot be served on {section.host}:{section.port} ({error.strerror or error}): "
                "set metrics.port to another port, or to 0 for any free one"
            ) from None
        self.url = f"http://{section.host}:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="metrics", daemon=True
        )
        self._thread.start()

    def show(self, run: str, page: Callable[[], str] | None = None) -> None:
        """Serve the metrics of `run` from now on, and at / the HTML that `page` makes in a thread of its own."""
        self._metrics_app = make_wsgi_app(self._metrics.of_run(run))
        self._page = page

    def beat(self, status: str | None = None) -> None:
        """Report that the driver is alive, and its status (None: unchanged)."""
        self._last_beat = time.monotonic()
        self.status = status or self.status

    def close(self) -> None:
        """Stop listening. Who scrapes regularly gets one more scrape, and so learns how the run ended."""
        try:
            self._await_scrape()
        finally:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(timeout=5)

    def _await_scrape(self) -> None:
        with self._scraped:
            if len(self._scrapes) == 2:
                before, last = self._scrapes
                patience = last + min(1.5 * (last - before), LAST_SCRAPE_SECONDS) - time.monotonic()
                self._scraped.wait_for(lambda: self._scrapes[-1] > last, timeout=patience)

    def _note_scrape(self) -> None:
        with self._scraped:
            self._scrapes.append(time.monotonic())
            self._scraped.notify_all()

    def _serve(self, environ: Environ, start_response) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics" and self._metrics_app is not None:
            return _Body(self._metrics_app(environ, start_response), self._note_scrape)
        if path == "/" and self._page is not None and _is_of_this_machine(environ):
            code, kind, body = self._write_page(self._page)
        else:
            code, answer = self._answer(path)
            kind, body = "application/json", json.dumps(answer) + "\n"
        start_response(code, [("Content-Type", kind), ("Cache-Control", "no-store")])
        return [body.encode()]

    def _answer(self, path: str) -> tuple[str, dict[str, object]]:
        if path == "/healthz":
            silent = time.monotonic() - self._last_beat
            healthy = silent < HEALTHY_SECONDS
            code = "200 OK" if healthy else "503 Service Unavailable"
            return code, {"healthy": healthy, "status": self.status, "seconds_since_beat": round(silent, 1)}
        if path == "/" and self._page is not None:
            return "403 Forbidden", {
                "error": "the report is for this machine alone: come to localhost, by SSH or kubectl port-forward"
            }
        if path in ("/", "/metrics"):
            return "503 Service Unavailable", {"error": "the run has no folder yet"}
        return "404 Not Found", {"error": "this endpoint serves /, /metrics and /healthz"}

    @staticmethod
    def _write_page(page: Callable[[], str]) -> tuple[str, str, str]:
        """Status, content type and text. What goes wrong is the reader's to see, and no harm to the run."""
        try:
            return "200 OK", "text/html; charset=utf-8", page()
        except Exception as error:
            log.debug("the report cannot be made", exc_info=error)
            said = f"the report cannot be made: {type(error).__name__}: {error}\n"
            return "500 Internal Server Error", "text/plain; charset=utf-8", said


def _is_of_this_machine(environ: Environ) -> bool:
    """Whether the client is here, and asked for here: a page of a rebound name could read along otherwise."""
    host = urlsplit(f"//{environ.get('HTTP_HOST', '')}").hostname
    return _is_loopback(environ["REMOTE_ADDR"]) and (host == "localhost" or _is_loopback(host or ""))


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


class _Body(list[bytes]):
    """An answer; `then` is called once it is sent."""

    def __init__(self, parts: Iterable[bytes], then: Callable[[], None]):
        super().__init__(parts)
        self.close = then


class _Server(ThreadingMixIn, WSGIServer):
    """One thread per connection, so that a silent client does not block others."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Do not log scrapes."""

    def address_string(self) -> str:
        return str(self.client_address[0])  # no reverse look-up of the scraper's name
