"""One process at a time in a folder that it fills: a lock that goes with its process, however that ends.

The lock is the kernel's, on `run.lock` in the folder (flock, which NFS passes on to other machines). What the file
says is for people: who holds it, or held it last.
"""

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from common.errors import RecipeError

LOCK = "run.lock"
LOOK_SECONDS = 1.0  # who looks whether the lock is free holds it for a moment
_HELD = (BlockingIOError, PermissionError)  # some network file systems say the latter

log = logging.getLogger("vapi.driver")


class FolderHeldError(RecipeError):
    """Another process is at work in the folder."""


@dataclass(frozen=True)
class _Words:
    """For errors about a folder."""

    who: str  # is at work in it
    setting: str  # that names it
    advice: str


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Make a run's folder and hold it. FolderHeldError where another process does; RecipeError where it cannot be.

    Where nothing else was written, nothing is left; else the lock's file stays, which tells who was the last.
    """
    stop = f"choose another run.name, wait for its end, or stop it (python -m deploy stop {folder})"
    with _locked(folder, _Words(f"the run {folder}", "run.dir", stop), keeps_file=True):
        yield


@contextmanager
def lock_output(folder: Path, command: str, setting: str) -> Iterator[None]:
    """The same for a folder that `command` fills and `setting` names; no file of the lock stays."""
    advice = f"wait for its end, or name another folder by {setting}"
    with _locked(folder, _Words(f"`{command}` into {folder}", setting, advice), keeps_file=False):
        yield


@contextmanager
def _locked(folder: Path, words: _Words, keeps_file: bool) -> Iterator[None]:
    was_there = folder.exists()
    file = _held_file(folder, words)
    try:
        os.truncate(file, 0)
        os.write(file, json.dumps(_this_process()).encode())
        yield
    finally:
        _clear_away(folder, was_there, keeps_file)
        os.close(file)


def lock_state(folder: Path) -> Literal["held", "free", "unknown"]:
    """Whether a process is at work in `folder`; unknown where it has no lock, or its storage knows none."""
    try:
        file = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return "unknown"
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except _HELD:
        return "held"
    except OSError:
        return "held" if _lives_here(holder(folder)) else "unknown"
    else:
        return "free"
    finally:
        os.close(file)


def holder(folder: Path) -> dict[str, Any]:
    """Who holds the folder, or held it last: host, pid, since; empty where nobody said so."""
    try:
        said = json.loads((folder / LOCK).read_text())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def holder_text(folder: Path) -> str:
    """As "process 12 on host-1"."""
    said = holder(folder)
    return f"process {said['pid']} on {said['host']}" if {"pid", "host"} <= said.keys() else "another process"


def _held_file(folder: Path, words: _Words) -> int:
    """The open lock file, locked."""
    deadline = time.monotonic() + LOOK_SECONDS
    while True:
        file = _open(folder, words)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except _HELD:
            os.close(file)
            if time.monotonic() > deadline:
                raise _is_held(folder, words) from None
            time.sleep(0.05)
            continue
        except OSError as error:
            if _lives_here(holder(folder)):
                os.close(file)
                raise _is_held(folder, words) from None
            log.warning("%s cannot be locked (%s): start nothing else there", folder, error.strerror)
            return file
        if _is_still_there(file, folder / LOCK):
            return file
        os.close(file)  # its last holder removed it meanwhile


def _open(folder: Path, words: _Words) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RecipeError(
            f"the folder {folder} cannot be made ({error.strerror or error}): set {words.setting} to a folder "
            "that can be written to"
        ) from None


def _is_still_there(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _clear_away(folder: Path, was_there: bool, keeps_file: bool) -> None:
    """The file, unless it is to be kept beside others; and a new folder where nothing was written."""
    with suppress(OSError):  # somebody else has begun there
        is_unused = [path.name for path in folder.iterdir()] == [LOCK]
        if is_unused or not keeps_file:
            (folder / LOCK).unlink()
        if is_unused and not was_there:
            folder.rmdir()


def _is_held(folder: Path, words: _Words) -> FolderHeldError:
    return FolderHeldError(f"{words.who} is at work ({holder_text(folder)}): {words.advice}")


def _this_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": datetime.now(UTC).isoformat()}


def _lives_here(said: dict[str, Any]) -> bool:
    """Of a holder on this machine, whether it lives, where the storage cannot say; this process is none."""
    pid = said.get("pid")
    if said.get("host") != socket.gethostname() or not isinstance(pid, int) or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
