"""What a rank says when the collective it took part in broke: usually that another rank is gone."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist


class PeerLostError(RuntimeError):
    """A collective failed. Whoever meets it lives, and can form a new group with the others that do."""


_TRANSPORT = re.compile("gloo|nccl|c10d", re.IGNORECASE)  # gloo's errors have no class of their own


@contextmanager
def peer_errors() -> Iterator[None]:
    """Turns what torch.distributed raises into PeerLostError; any other error passes as it is."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not _TRANSPORT.search(str(error)):
            raise
        raise PeerLostError((str(error) or type(error).__name__).splitlines()[0]) from None
