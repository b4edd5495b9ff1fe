"""What counts as the loss of another rank."""

import pytest
import torch
import torch.distributed as dist

from learner.peers import PeerLostError, peer_errors


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:1\nmore"
        ),
        dist.DistBackendError("NCCL communicator was aborted"),
        dist.DistStoreError("wait timeout after 30000ms"),
    ],
)
def test_an_error_of_the_transport_says_that_a_peer_was_lost_in_its_first_line(error: RuntimeError) -> None:
    with pytest.raises(PeerLostError) as caught, peer_errors():
        raise error
    assert str(caught.value) == str(error).splitlines()[0]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), ValueError("of no use")])
def test_any_other_error_passes_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, peer_errors():
        raise error
    assert caught.value is error
