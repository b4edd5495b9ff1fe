"""Files that are complete or absent, and what is said where one cannot be written."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_BROKEN = {errno.EIO, errno.EROFS, errno.ESTALE}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; it is renamed to `path` if the block succeeds.

    An OSError of the block names `path`: a full disk's own names no file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(temporary), temporary):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def append_line(path: Path, line: str) -> None:
    """Add a line, whole or not at all: half of one would spoil the next."""
    with path.open("ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        content = f"{line}\n".encode()
        try:
            if file.write(content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError:
            file.truncate(size)
            raise


def storage_problem(error: OSError) -> str | None:
    """One sentence for the user about a file or a disk; None for other errors, such as those of a connection."""
    if error.filename is None and error.errno not in _FULL | _BROKEN:
        return None
    advice = "make room, or name another place" if error.errno in _FULL else "name a place that can be used"
    what = error.filename if error.filename is not None else "a file"
    reason = "a file is in the way" if error.errno == errno.EEXIST else error.strerror
    return f"{what} cannot be used ({reason}): {advice}"
