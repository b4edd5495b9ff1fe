"""Files of the Hugging Face hub: `hf://OWNER/REPO/FILE`, or `hf://OWNER/REPO@REVISION/FILE`.

Each process fetches what it needs into its own machine's cache (HF_HOME), where the next one finds it: a recipe's
addresses mean the same on every node. `huggingface_hub` comes with the extra `hub`.
"""

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from common.errors import CheckpointError
from common.paths import CHECKOUT, resolve

SCHEME = "hf://"
_ADDRESS = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?/(?P<file>[^/].*)")
_INDEX = ".index.json"  # of weights in several files, which it names
_MAY_FETCH = ContextVar("may_fetch", default=True)


@dataclass(frozen=True)
class HubFile:
    repo: str  # OWNER/REPO
    file: str  # its path in the repository
    revision: str | None  # branch, tag or commit; None: the main branch


@contextmanager
def nothing_fetched() -> Iterator[None]:
    """Within, what is not on this machine is missing, though a run would fetch it."""
    former = _MAY_FETCH.set(False)
    try:
        yield
    finally:
        _MAY_FETCH.reset(former)


def may_fetch() -> bool:
    return _MAY_FETCH.get()


def located(address: str | Path, setting: str) -> Path:
    """The file or folder at a path, which is looked for in the checkout if relative, or at an hf:// address.

    A file of the hub is fetched unless the cache has it, and so are the files of an index. `setting` is the key to
    change, for messages. Raises CheckpointError where a file cannot be had.
    """
    if not str(address).startswith(SCHEME):
        return resolve(address)
    file = hub_file(str(address), setting)
    path = _fetched(file, setting)
    if path.name.endswith(_INDEX):
        for name in _parts(path, str(address)):
            _fetched(HubFile(file.repo, str(PurePosixPath(file.file).parent / name), file.revision), setting)
    return path


def hub_file(address: str, setting: str) -> HubFile:
    """What an hf:// address names. Raises CheckpointError."""
    found = _ADDRESS.fullmatch(address)
    if not found:
        raise CheckpointError(
            f"{setting} is {address}, which names no file: write hf://OWNER/REPO/FILE, such as "
            "hf://FoundationVision/LlamaGen/c2i_XL_384.pt"
        )
    return HubFile(found["repo"], found["file"], found["revision"])


def how_to_get(obtain_from: str, path: Path, setting: str) -> str:
    """The user's next step for a file missing at `path`; "" where nothing is known.

    `obtain_from` is an hf:// address, a URL or a command.
    """
    if obtain_from.startswith(SCHEME):
        file = hub_file(obtain_from, "obtain_from")
        if PurePosixPath(file.file).name != path.name:
            return f"set {setting}={obtain_from}, "
        folder = path.parent.relative_to(CHECKOUT) if path.is_relative_to(CHECKOUT) else path.parent
        return f"run this: {_download(file, '--local-dir', str(folder))}; or set {setting}={obtain_from}, "
    if "://" in obtain_from:
        return f"get it from {obtain_from}, "
    return f"run this: {obtain_from}; " if obtain_from else ""


def _fetched(file: HubFile, setting: str) -> Path:
    try:
        import huggingface_hub as hub
    except ImportError:
        raise CheckpointError(
            f"{setting} names a file of the Hugging Face hub, and the package huggingface_hub is not installed: "
            f"pip install '.[hub]', or download {file.file} of {file.repo} and name the file"
        ) from None
    try:
        found = hub.hf_hub_download(file.repo, file.file, revision=file.revision, local_files_only=not may_fetch())
        return Path(found)
    except Exception as error:  # the package raises those of its HTTP library too, and which one that is changes
        raise CheckpointError(f"{setting} is {_address(file)}, {_reason(error, file, hub)}") from error


def _reason(error: Exception, file: HubFile, hub: Any) -> str:
    errors = hub.errors
    if isinstance(error, errors.GatedRepoError):
        return f"which {file.repo} shares with some only: ask for access on its page, then `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "but the hub shows no such repository: correct the name, or `hf auth login` if it is private"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"but {file.repo} has no revision {file.revision}: correct it, or leave it out"
    if isinstance(error, errors.LocalEntryNotFoundError) and not may_fetch():
        return f"which is not in this machine's cache yet: a run fetches it, or run this: {_download(file)}"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            "which is not in this machine's cache, and the hub cannot be reached: connect, or copy the file here "
            "and name its path"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return f"but {file.repo} has no such file: look at its list of files"
    reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
    return f"which cannot be fetched ({reason}): make sure of the network and of room in the cache (HF_HOME)"


def _download(file: HubFile, *options: str) -> str:
    words = ["hf", "download", file.repo, file.file]
    return shlex.join([*words, *(["--revision", file.revision] if file.revision else []), *options])


def _address(file: HubFile) -> str:
    revision = f"@{file.revision}" if file.revision else ""
    return f"{SCHEME}{file.repo}{revision}/{file.file}"


def _parts(index: Path, address: str) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{address} is no index of weights: it has no weight_map of file names") from None
