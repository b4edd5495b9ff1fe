"""Copies of a run's checkpoints at a URL: object storage, or anything else that fsspec supports.

A remote checkpoint, too, is complete or absent: the manifest, which holds the digest of every other file, is
written last and removed first.
"""

import json
import shutil
from pathlib import Path

import fsspec

from common.errors import CheckpointError, RecipeError, first_line
from learner.checkpoint import MANIFEST, files_of
from learner.checkpoint_names import step_of


class RemoteCheckpoints:
    def __init__(self, url: str):
        """The checkpoints under `url`. Raises RecipeError if fsspec cannot reach it."""
        self._url = url.rstrip("/")
        try:
            self._files, self._root = fsspec.core.url_to_fs(self._url)
            self._files.makedirs(self._root, exist_ok=True)
        except Exception as error:  # each storage has its own errors
            raise RecipeError(
                f"{url} cannot be used for checkpoints ({first_line(error)}): set checkpoint.url to storage that "
                "fsspec reaches from the driver, and install its package there (s3fs, gcsfs, adlfs, …)"
            ) from None

    def upload(self, checkpoint: Path) -> None:
        """Copy a complete checkpoint from the run folder; a remote one of the same step is replaced."""
        remote = f"{self._root}/{checkpoint.name}"
        self._remove(remote)
        self._files.makedirs(remote, exist_ok=True)
        for name in (*files_of(json.loads((checkpoint / MANIFEST).read_text())), MANIFEST):
            self._files.put_file(str(checkpoint / name), f"{remote}/{name}")

    def newest(self) -> str | None:
        """The name of the complete checkpoint with the highest step."""
        return max(self._complete(), key=step_of, default=None)

    def download(self, name: str, folder: Path) -> Path:
        """Copy a checkpoint to `folder`/`name`, complete or not at all; the reader verifies it.

        Raises CheckpointError if there is no checkpoint of this name.
        """
        if not self._files.exists(f"{self._root}/{name}/{MANIFEST}"):
            raise CheckpointError(
                f"{self._url}/{name} is no complete checkpoint: {MANIFEST} is missing; set resume to auto, or "
                "to the URL of a folder such as step-000100"
            )
        temporary = folder / f".{name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            self._files.get_file(f"{self._root}/{name}/{MANIFEST}", str(temporary / MANIFEST))
            for file in files_of(json.loads((temporary / MANIFEST).read_text())):
                self._files.get_file(f"{self._root}/{name}/{file}", str(temporary / file))
            shutil.rmtree(folder / name, ignore_errors=True)
            return temporary.rename(folder / name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def prune(self, keep: int) -> None:
        """Remove all but the `keep` newest complete checkpoints."""
        for name in sorted(self._complete(), key=step_of)[:-keep]:
            self._remove(f"{self._root}/{name}")

    def _complete(self) -> list[str]:
        self._files.invalidate_cache()
        names = (str(path).rpartition("/")[2] for path in self._files.ls(self._root, detail=False))
        return [
            name for name in names if step_of(name) >= 0 and self._files.exists(f"{self._root}/{name}/{MANIFEST}")
        ]

    def _remove(self, remote: str) -> None:
        if self._files.exists(f"{remote}/{MANIFEST}"):
            self._files.rm_file(f"{remote}/{MANIFEST}")
        if self._files.exists(remote):
            self._files.rm(remote, recursive=True)
