"""A run's folder has one process at a time, and the lock goes with it."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.errors import RecipeError
from common.paths import CHECKOUT
from deploy.runs import run_lock
from deploy.runs.run_lock import LOCK, FolderHeldError, holder_text, lock_output, lock_run, lock_state

HOLD = (
    "import sys; from pathlib import Path; from deploy.runs.run_lock import lock_run\n"
    "with lock_run(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()"
)


@contextmanager
def held_by_another(folder: Path) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "LOOK_SECONDS", 0.0)


def test_a_folder_that_another_process_holds_is_refused_until_it_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with held_by_another(folder) as process:
        assert lock_state(folder) == "held"
        assert holder_text(folder) == f"process {process.pid} on {socket.gethostname()}"
        with pytest.raises(FolderHeldError, match=rf"run is at work \(process {process.pid} on .*choose another"):
            lock_run(folder).__enter__()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert lock_state(folder) == "free"
        with lock_run(folder):
            assert holder_text(folder) == f"process {os.getpid()} on {socket.gethostname()}"


def test_a_folder_where_nothing_was_written_is_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").touch()
    for name in ("new", "empty", "full"):
        with lock_run(tmp_path / name):
            assert (tmp_path / name / LOCK).is_file()
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / "empty").iterdir()) == []
    assert lock_state(tmp_path / "full") == "free"
    assert lock_state(tmp_path / "empty") == "unknown"


def test_a_lock_that_its_last_holder_removed_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, removals = fcntl.flock, [tmp_path / LOCK]

    def flock(file: int, how: int) -> None:
        if removals:
            removals.pop().unlink()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock_run(tmp_path):
        assert lock_state(tmp_path) == "held"


def test_where_the_storage_knows_no_locks_the_process_that_is_named_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr("logging.Logger.propagate", True, raising=False)
    (tmp_path / LOCK).write_text(json.dumps({"host": socket.gethostname(), "pid": os.getppid()}))
    assert lock_state(tmp_path) == "held"
    with pytest.raises(FolderHeldError, match=f"process {os.getppid()} on"):
        lock_run(tmp_path).__enter__()
    (tmp_path / LOCK).write_text(json.dumps({"host": "another", "pid": os.getppid()}))
    assert lock_state(tmp_path) == "unknown"
    with lock_run(tmp_path):
        pass


def test_an_output_leaves_no_file_of_the_lock_and_names_its_command(tmp_path: Path) -> None:
    with lock_output(tmp_path / "out", "sample", "--out"):
        (tmp_path / "out" / "000000.png").touch()
        with pytest.raises(FolderHeldError) as caught:
            lock_output(tmp_path / "out", "sample", "--out").__enter__()
    assert str(caught.value) == (
        f"`sample` into {tmp_path}/out is at work (process {os.getpid()} on {socket.gethostname()}): wait for its "
        "end, or name another folder by --out"
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["000000.png"]
    with lock_output(tmp_path / "new", "sample", "--out"):
        pass
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_names_the_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError, match=r"cannot be made \(Not a directory\): set run\.dir"):
        lock_run(tmp_path / "file" / "run").__enter__()
