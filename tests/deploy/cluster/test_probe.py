"""Whether a cluster answers is known within seconds, and told by what is wrong."""

import re
import socket
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
import pytest
import ray
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from common.errors import ClusterError
from deploy.cluster import probe
from deploy.cluster.probe import require_answer


class Gcs(gcs_service_pb2_grpc.NodeInfoGcsServiceServicer):
    def __init__(self, version: str = ray.__version__, refuses: bool = False):
        self._version, self._refuses = version, refuses

    def CheckAlive(self, request, context):  # noqa: N802  gRPC's name
        if self._refuses:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken: missing or incorrect")
        return gcs_service_pb2.CheckAliveReply(ray_version=self._version)


@contextmanager
def served(gcs: Gcs) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    gcs_service_pb2_grpc.add_NodeInfoGcsServiceServicer_to_server(gcs, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextmanager
def silent() -> Iterator[str]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def refusal(address: str, said_by: str = "RAY_ADDRESS") -> str:
    with pytest.raises(ClusterError) as caught:
        require_answer(address, said_by)
    return str(caught.value)


def test_a_cluster_that_answers_is_one() -> None:
    with served(Gcs()) as address:
        require_answer(address, "RAY_ADDRESS")
    require_answer("local", "RAY_ADDRESS")


def test_a_wrong_token_a_dead_address_and_silence_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "PROBE_SECONDS", 0.5)
    with served(Gcs(refuses=True)) as address:
        assert f"the Ray cluster at RAY_ADDRESS={address} refuses this process's token" in refusal(address)
    with silent() as address:
        assert refusal(address).startswith(f"no Ray cluster answers at RAY_ADDRESS={address} (")
    text = refusal(address)  # nobody is there any more
    gone = r"\(.*Connection (refused|reset).*\)"  # the silent one's socket may still be closing
    assert re.match(rf"no Ray cluster answers at RAY_ADDRESS={address} {gone}", text)
    assert text.endswith("start one, correct the address, or unset RAY_ADDRESS")
    assert re.fullmatch(rf"no Ray cluster answers at {address} {gone}", refusal(address, ""))


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "ray://127.0.0.1:10001"])
def test_addresses_of_other_services_say_which_is_needed(address: str) -> None:
    assert "that of the cluster's GCS is needed: HOST:PORT" in refusal(address)


def test_another_version_of_ray_is_named() -> None:
    with served(Gcs(version="2.0.0")) as address:
        assert f"has version 2.0.0, and this process {ray.__version__}" in refusal(address)
