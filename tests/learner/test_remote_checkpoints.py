"""Copies of checkpoints at a URL: complete or absent, and only the newest kept."""

import uuid
from pathlib import Path

import fsspec
import numpy as np
import pytest

from common.errors import RecipeError
from common.types import TrainingState
from common.weights.snapshot import tensors_of
from learner.checkpoint import MANIFEST, CheckpointState, read_checkpoint, write_checkpoint
from learner.remote_checkpoints import RemoteCheckpoints


def write(folder: Path, step: int) -> Path:
    state = CheckpointState(step, {}, groups_learned=0, images_skipped=0, recipe={})
    weights = {"w": np.full(2, step, np.float32)}
    return write_checkpoint(folder, TrainingState(weights, frozenset(), {"w.step": np.zeros(1)}), state)


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4()}"


def test_what_is_uploaded_comes_back_and_passes_its_digests(url: str, tmp_path: Path) -> None:
    RemoteCheckpoints(url).upload(write(tmp_path / "here", 3))
    remote = RemoteCheckpoints(url + "/")
    assert remote.newest() == "step-000003"
    back = remote.download("step-000003", tmp_path / "there")
    assert back == tmp_path / "there" / "step-000003"
    assert tensors_of(read_checkpoint(back).weights)["w"].tolist() == [3, 3]
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["step-000003"]


def test_an_upload_that_was_broken_off_is_no_checkpoint(url: str, tmp_path: Path, monkeypatch) -> None:
    remote = RemoteCheckpoints(url)
    remote.upload(write(tmp_path, 3))
    put_file = type(remote._files).put_file

    def breaks_off(self, local, target, **rest):
        if target.endswith("state.json"):
            raise ConnectionError("gone")
        put_file(self, local, target, **rest)

    monkeypatch.setattr(type(remote._files), "put_file", breaks_off)
    for step in (4, 3):
        with pytest.raises(ConnectionError):
            remote.upload(write(tmp_path, step))
    monkeypatch.undo()
    assert remote.newest() is None
    remote.upload(write(tmp_path, 3))
    assert remote.newest() == "step-000003"


def test_the_oldest_are_removed(url: str, tmp_path: Path) -> None:
    remote = RemoteCheckpoints(url)
    assert remote.newest() is None
    for step in (9, 10, 1_000_000):
        remote.upload(write(tmp_path, step))
    remote.prune(keep=2)
    files = fsspec.filesystem("memory").find(url)
    assert {path.split("/")[-2] for path in files} == {"step-000010", "step-1000000"}
    assert sum(path.endswith(MANIFEST) for path in files) == 2
    assert remote.newest() == "step-1000000"


def test_storage_that_cannot_be_reached_names_the_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError, match=r"nowhere://runs cannot be used .*: set checkpoint\.url"):
        RemoteCheckpoints("nowhere://runs")
    with pytest.raises(RecipeError, match=r"file/runs cannot be used for checkpoints"):
        RemoteCheckpoints((tmp_path / "file" / "runs").as_uri())
