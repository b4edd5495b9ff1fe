"""The error of a rank whose collective failed, usually because another rank is gone."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist


class PeerLostError(RuntimeError):
    """A collective failed. The rank that gets this error is alive and can form a new group with the others."""


_TRANSPORT = re.compile("gloo|nccl|c10d", re.IGNORECASE)  # gloo's errors have no class of their own


@contextmanager
def peer_errors() -> Iterator[None]:
    """Turn errors of torch.distributed into PeerLostError; other errors pass unchanged."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not _TRANSPORT.search(str(error)):
            raise
        raise PeerLostError((str(error) or type(error).__name__).splitlines()[0]) from None
