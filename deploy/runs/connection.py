"""`ray.json` in a run's folder: how `scale`, `stop` and `status` reach the run's Ray, while it is there."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CONNECTION = "ray.json"


@contextmanager
def connection_kept(folder: Path, connection: dict[str, Any]) -> Iterator[None]:
    """During the block `folder` says how to connect: to the run's owner only, for it may hold a token."""
    path = folder / CONNECTION
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(connection))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def read_connection(folder: Path) -> dict[str, Any] | None:
    """Address and environment; None where the run's Ray is not there, or not yet."""
    try:
        known = json.loads((folder / CONNECTION).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return known if isinstance(known, dict) else None
