"""What a command does when nobody reads its output any more, as after `| head`."""

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_STDOUT, _STDERR = 1, 2
READER_GONE = 141  # as of a program that SIGPIPE ended: 128 + 13


@contextmanager
def ending_with_its_reader() -> Iterator[None]:
    """End the command with code 141 and without a word once its output's reader has gone.

    A broken pipe of another kind, such as a connection's, stays an error.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    except BrokenPipeError:
        if not _silence_the_abandoned():
            raise
        raise SystemExit(READER_GONE) from None


def _silence_the_abandoned() -> bool:
    """Send what still comes, also at the interpreter's own end, nowhere; whether there was a stream to silence."""
    abandoned = [descriptor for descriptor in (_STDOUT, _STDERR) if _is_abandoned(descriptor)]
    for descriptor in abandoned:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    return bool(abandoned)


def _is_abandoned(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))
