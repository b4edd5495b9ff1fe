"""The name that a run has at a tracking service, kept in the run folder so that a resumed run goes on there."""

import json
from collections.abc import Callable
from pathlib import Path

from common.atomic import write_json


def kept_identity(folder: Path, service: str, make: Callable[[], str]) -> str:
    """The identity at `service`, in tracking.json; made the first time."""
    path = folder / "tracking.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    if service not in known:
        known[service] = make()
        write_json(path, known)
    return known[service]
