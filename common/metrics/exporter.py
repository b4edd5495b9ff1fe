"""The driver's HTTP endpoint: /metrics for Prometheus and /healthz for probes. It has its own registry."""

import json
import threading
import time
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app

from common.config.service import MetricsSection
from common.errors import ClusterError
from common.metrics.catalogue import CATALOGUE

HEALTHY_SECONDS = 120.0
"""The driver's loop beats several times per second; a silence this long means that it hangs."""


class Metrics:
    """The catalogue's metrics, addressed by name."""

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
            for value in metric.values:
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

    def _labelled(self, name: str, labels: dict[str, str]):
        metric = self._metrics[name]
        return metric.labels(**labels) if labels else metric


class Exporter:
    """Serves the metrics from a thread until it is closed."""

    def __init__(self, metrics: Metrics, section: MetricsSection):
        """Listen at once. Raises ClusterError if the port is taken."""
        self._metrics_app = make_wsgi_app(metrics.registry)
        self._last_beat = time.monotonic()
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

    def beat(self, status: str | None = None) -> None:
        """Report that the driver is alive, and its status (None: unchanged)."""
        self._last_beat = time.monotonic()
        self.status = status or self.status

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    def _serve(self, environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return self._metrics_app(environ, start_response)
        if path == "/healthz":
            silent = time.monotonic() - self._last_beat
            healthy = silent < HEALTHY_SECONDS
            code = "200 OK" if healthy else "503 Service Unavailable"
            body = {"healthy": healthy, "status": self.status, "seconds_since_beat": round(silent, 1)}
        else:
            code, body = "404 Not Found", {"error": "this endpoint serves /metrics and /healthz"}
        start_response(code, [("Content-Type", "application/json")])
        return [json.dumps(body).encode() + b"\n"]


class _Server(ThreadingMixIn, WSGIServer):
    """One thread per connection, so that a silent client does not block others."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        """Do not log scrapes."""

    def address_string(self) -> str:
        return str(self.client_address[0])  # no reverse look-up of the scraper's name
