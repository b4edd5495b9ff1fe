"""Whether a Ray cluster answers at an address, and lets this process in: known within seconds.

Ray itself tries for minutes, and tells a wrong token and a dead address alike.
"""

import os

import grpc
import ray
from ray._private import services
from ray._private.grpc_utils import init_grpc_channel
from ray._private.ray_constants import GLOBAL_GRPC_OPTIONS
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from common.errors import ClusterError, first_line

PROBE_SECONDS = 3.0


def require_cluster() -> None:
    """ClusterError within seconds where RAY_ADDRESS names a cluster that does not answer or refuses us."""
    if address := os.environ.get("RAY_ADDRESS"):
        require_answer(address, "RAY_ADDRESS")


def require_answer(address: str, said_by: str = "") -> None:
    """ClusterError where no cluster answers at `address`, or refuses this process.

    `said_by` names the variable that the user gave the address by.
    """
    where = f"{said_by}={address}" if said_by else address
    if address == "local":  # Ray starts one
        return
    try:
        version = _version(_of_gcs(address, where))
    except ray.exceptions.AuthenticationError as error:
        raise _refused(where, first_line(error)) from None
    except grpc.RpcError as error:
        code, details = error.code(), first_line(Exception(error.details()))
        if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            raise _refused(where, details) from None
        advice = f": start one, correct the address, or unset {said_by}" if said_by else ""
        raise ClusterError(f"no Ray cluster answers at {where} ({_plain(code, details)}){advice}") from None
    if version and version != ray.__version__:
        raise ClusterError(
            f"the Ray cluster at {where} has version {version}, and this process {ray.__version__}: install the "
            "same Ray here as on its nodes"
        )


def _of_gcs(address: str, where: str) -> str:
    """HOST:PORT."""
    if "://" in address:
        raise ClusterError(
            f"{where} is an address for `ray job` or the Ray client, and that of the cluster's GCS is needed: "
            "HOST:PORT, with port 6379 where `ray start` was not told another"
        )
    if address != "auto":
        return address
    found = services.canonicalize_bootstrap_address("auto")  # or what is left of a dead one
    if not found or found == "auto":
        raise ClusterError(f"{where}, but no Ray cluster runs on this machine: start one, or unset RAY_ADDRESS")
    return found


def _version(address: str) -> str:
    request = gcs_service_pb2.CheckAliveRequest()  # type: ignore[attr-defined]  # made at import
    with init_grpc_channel(address, GLOBAL_GRPC_OPTIONS) as channel:
        stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        return stub.CheckAlive(request, timeout=PROBE_SECONDS).ray_version


def _plain(code: grpc.StatusCode, details: str) -> str:
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"silent for {PROBE_SECONDS:g} s"
    return details.rpartition(": ")[2] or code.name


def _refused(where: str, reason: str) -> ClusterError:
    return ClusterError(
        f"the Ray cluster at {where} refuses this process's token ({reason}): export RAY_AUTH_MODE=token, and "
        "compare RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token with the cluster's"
    )
