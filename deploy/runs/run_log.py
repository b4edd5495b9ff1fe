"""The log that a run's folder keeps: lines of the driver, and what actors and ranks write."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from common.log import LogFormat, log_also_to

LOG = "run.log"
_OURS = re.compile(r"\d\d:\d\d:\d\d [A-Z]+ ")  # a line of common/log.py, which names its role


class RunLog:
    def __init__(self, file: TextIO, form: LogFormat):
        self._file, self._form = file, form
        self._lock = threading.Lock()  # Ray hands on lines in a thread of its own

    def worker_line(self, line: str, who: str) -> None:
        """A line of another process; `who` is said where the line itself does not."""
        if self._form == "json":
            written = line if line.startswith("{") else _as_json(line, who)
        else:
            written = line if _OURS.match(line) else f"({who}) {line}"
        with self._lock:
            if not self._file.closed:
                self._file.write(f"{written}\n")
                self._file.flush()


@contextmanager
def kept_log(folder: Path, form: LogFormat) -> Iterator[RunLog]:
    """During the block, this process's lines also go to run.log, which a resumed run goes on with."""
    with (folder / LOG).open("a", errors="backslashreplace") as file, log_also_to(file, form):
        yield RunLog(file, form)


def _as_json(line: str, who: str) -> str:
    said = {"time": datetime.now(UTC).isoformat(), "level": "INFO", "role": who, "message": line}
    return json.dumps(said, ensure_ascii=False)
