"""Log lines: one format for driver, actors and ranks. Each line gives the role and the optimizer step.

Workers write to standard error, which Ray forwards to the driver.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["text", "json"]

_TEXT = "%(asctime)s %(levelname)s %(role)s step %(step)d: %(message)s"
_context: dict[str, str | int] = {"role": "driver", "step": 0}  # of this process


def set_up_logging(form: LogFormat = "text", role: str = "driver") -> None:
    """Send the project's log lines to standard error: as text, or as one JSON object per line."""
    log_context(role=role)
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_add_context)
    handler.setFormatter(_Json() if form == "json" else logging.Formatter(_TEXT, "%H:%M:%S"))
    root = logging.getLogger("vapi")
    root.handlers[:] = [handler]
    root.setLevel("INFO")
    root.propagate = False


def log_context(*, role: str | None = None, step: int | None = None) -> None:
    """Set the role and step in this process's next lines; None leaves a value unchanged."""
    _context.update({name: value for name, value in (("role", role), ("step", step)) if value is not None})


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
