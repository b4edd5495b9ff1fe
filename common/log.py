"""Log lines: one format for driver, actors and ranks. Each line gives the role and the optimizer step.

Workers write to standard error, which Ray forwards to the driver.
"""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal, TextIO

LogFormat = Literal["text", "json"]

_TEXT = "%(asctime)s %(levelname)s %(role)s step %(step)d: %(message)s"
_context: dict[str, str | int] = {"role": "driver", "step": 0}  # of this process


def set_up_logging(form: LogFormat = "text", role: str = "driver") -> None:
    """Send the project's log lines to standard error: as text, or as one JSON object per line."""
    log_context(role=role)
    root = logging.getLogger("vapi")
    root.handlers[:] = [_handler(sys.stderr, form)]
    root.setLevel("INFO")
    root.propagate = False


@contextmanager
def log_also_to(stream: TextIO, form: LogFormat) -> Iterator[None]:
    """During the block, this process's lines go to `stream` as well."""
    root, handler = logging.getLogger("vapi"), _handler(stream, form)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def log_context(*, role: str | None = None, step: int | None = None) -> None:
    """Set the role and step in this process's next lines; None leaves a value unchanged."""
    _context.update({name: value for name, value in (("role", role), ("step", step)) if value is not None})


def _handler(stream: TextIO, form: LogFormat) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    handler.addFilter(_add_context)
    handler.setFormatter(_Json() if form == "json" else logging.Formatter(_TEXT, "%H:%M:%S"))
    return handler


def _add_context(record: logging.LogRecord) -> bool:
    vars(record).update(_context)
    return True


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            **_context,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
