"""Folders that calls go on with: each belongs to one set of settings, which it keeps, and others are refused."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.atomic import write_json
from common.errors import DataError
from deploy.runs.run_lock import LOCK


def claim(
    folder: Path, settings: Mapping[str, Any], *, file: str, argument: str, things: str, command: str
) -> None:
    """Make `folder` the one of these settings, kept there in `file`. DataError where it is another's.

    The other words are for the error: `argument` named the folder, and `command` fills it with `things`.
    """
    path = folder / file
    if not path.is_file():
        if folder.exists() and (not folder.is_dir() or any(each.name != LOCK for each in folder.iterdir())):
            raise DataError(
                f"{argument} {folder} is not empty and holds no {things} of `{command}`: name a new folder"
            )
        write_json(path, settings)
        return
    former = _read(path, argument)
    for name in dict.fromkeys((*settings, *former)):
        before, now = former.get(name), settings.get(name)
        if before != now:
            raise DataError(
                f"{argument} {folder} holds {things} made with {name} {_said(before)}, and this call has "
                f"{_said(now)}: repeat the call that began it, name another folder, or remove that one"
            )


def _read(path: Path, argument: str) -> Mapping[str, Any]:
    try:
        former = json.loads(path.read_text())
    except OSError as error:
        raise DataError(f"{argument}: {path} cannot be read ({error.strerror}): name another folder") from None
    except ValueError:
        former = None
    if not isinstance(former, dict):
        raise DataError(
            f"{argument}: {path} does not hold the settings of a call any more: name another folder, or remove "
            "that one"
        )
    return former


def _said(value: Any) -> str:
    return "none" if value is None else str(value)
