"""`hf://` addresses: what is asked of the hub's package, what its cache gives without a network, and refusals."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from common.errors import CheckpointError
from common.hub import how_to_get, hub_file, located
from common.models.weights_files import check_weights, load_weights, save_weights
from common.paths import CHECKOUT

hub = pytest.importorskip("huggingface_hub")

WEIGHTS = "hf://owner/small-model/folder/policy.safetensors"


def put(cache: Path, file: str, content: bytes, revision: str = "main") -> Path:
    """A file of owner/small-model in a cache as huggingface_hub lays it out."""
    repo = cache / "models--owner--small-model"
    commit = f"commit-of-{revision}"
    (repo / "refs").mkdir(parents=True, exist_ok=True)
    (repo / "refs" / revision).write_text(commit)
    path = repo / "snapshots" / commit / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of a machine without network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def refusal(address: str, setting: str = "policy.checkpoint") -> str:
    with pytest.raises(CheckpointError) as caught:
        located(address, setting)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_path_is_looked_for_in_the_checkout_and_nothing_is_asked_of_the_hub(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert located("deploy/recipes/mnist.yaml", "policy.checkpoint") == CHECKOUT / "deploy/recipes/mnist.yaml"
    assert located("/data/policy.pt", "policy.checkpoint") == Path("/data/policy.pt")


def test_a_file_in_the_cache_needs_no_network(cache: Path) -> None:
    path = put(cache, "folder/policy.safetensors", b"newest")
    older = put(cache, "folder/policy.safetensors", b"older", revision="v1.0")
    assert located(WEIGHTS, "policy.checkpoint").read_bytes() == path.read_bytes() == b"newest"
    address = "hf://owner/small-model@v1.0/folder/policy.safetensors"
    assert located(address, "policy.checkpoint").read_bytes() == older.read_bytes() == b"older"


def test_weights_are_read_and_checked_by_their_address(cache: Path, tmp_path: Path) -> None:
    saved, model = nn.Linear(3, 2), nn.Linear(3, 2)
    save_weights(saved.state_dict(), tmp_path / "policy.safetensors")
    put(cache, "folder/policy.safetensors", (tmp_path / "policy.safetensors").read_bytes())
    check_weights(model, WEIGHTS, what="policy")
    load_weights(model, WEIGHTS, what="policy")
    assert torch.equal(model.weight, saved.weight)


def test_a_file_that_is_not_in_the_cache_is_refused_without_network(cache: Path) -> None:
    assert refusal(WEIGHTS) == (
        f"policy.checkpoint is {WEIGHTS}, which is not in this machine's cache, and the hub cannot be reached: "
        "connect, or copy the file here and name its path"
    )


def test_an_index_brings_the_files_that_it_names(cache: Path) -> None:
    names = {"a.weight": "model-1.safetensors", "b.weight": "model-2.safetensors"}
    put(cache, "llm/model.safetensors.index.json", json.dumps({"weight_map": names}).encode())
    address = "hf://owner/small-model/llm/model.safetensors.index.json"
    put(cache, "llm/model-1.safetensors", b"")
    assert "hf://owner/small-model/llm/model-2.safetensors, which is not in this machine's cache" in refusal(
        address
    )
    put(cache, "llm/model-2.safetensors", b"")
    assert located(address, "policy.checkpoint").name == "model.safetensors.index.json"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"weight_map": ["a"]}', b"\xff"])
def test_an_index_that_is_none_is_refused(content: bytes, cache: Path) -> None:
    put(cache, "model.safetensors.index.json", content)
    assert "is no index of weights" in refusal("hf://owner/small-model/model.safetensors.index.json")


def test_without_the_package_the_refusal_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert refusal(WEIGHTS, "tokenizer.checkpoint") == (
        "tokenizer.checkpoint names a file of the Hugging Face hub, and the package huggingface_hub is not "
        "installed: pip install '.[hub]', or download folder/policy.safetensors of owner/small-model and name the "
        "file"
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("GatedRepoError", "which owner/small-model shares with some only: ask for access on its page"),
        ("RepositoryNotFoundError", "but the hub shows no such repository: correct the name"),
        ("RevisionNotFoundError", "but owner/small-model has no revision v9: correct it, or leave it out"),
        ("RemoteEntryNotFoundError", "but owner/small-model has no such file: look at its list of files"),
    ],
)
def test_what_the_hub_refuses_is_said_in_a_sentence(
    error: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = getattr(hub.errors, error)

    def refuse(*_: Any, **__: Any) -> str:
        raise kind.__new__(kind)  # it is made of an answer of the HTTP library

    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    address = "hf://owner/small-model@v9/policy.pt"
    assert refusal(address).startswith(f"policy.checkpoint is {address}, {words}")


def test_any_other_failure_is_said_in_its_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise OSError("no room\nfor it")

    monkeypatch.setattr(hub, "hf_hub_download", fail)
    assert refusal(WEIGHTS).startswith(f"policy.checkpoint is {WEIGHTS}, which cannot be fetched (no room): make")


@pytest.mark.parametrize(
    "address", ["hf://", "hf://owner", "hf://owner/repo", "hf://owner/repo/", "hf:///repo/file", "hf://o/r//f"]
)
def test_an_address_without_owner_repository_and_file_is_refused(address: str) -> None:
    assert f"policy.checkpoint is {address}, which names no file: write hf://OWNER/REPO/FILE" in refusal(address)


def test_an_address_has_owner_repository_revision_and_file() -> None:
    file = hub_file("hf://FoundationVision/LlamaGen@main/c2i_XL_384.pt", "policy.checkpoint")
    assert (file.repo, file.revision, file.file) == ("FoundationVision/LlamaGen", "main", "c2i_XL_384.pt")


@pytest.mark.parametrize(
    ("obtain_from", "text"),
    [
        (
            "hf://FoundationVision/LlamaGen/c2i_XL_384.pt",
            "run this: hf download FoundationVision/LlamaGen c2i_XL_384.pt --local-dir checkpoints; "
            "or set policy.checkpoint=hf://FoundationVision/LlamaGen/c2i_XL_384.pt, ",
        ),
        ("hf://owner/repo/other.pt", "set policy.checkpoint=hf://owner/repo/other.pt, "),
        ("https://example.org/c2i.pt", "get it from https://example.org/c2i.pt, "),
        ("make pretrain", "run this: make pretrain; "),
        ("", ""),
    ],
)
def test_the_next_step_for_a_missing_file(obtain_from: str, text: str) -> None:
    assert how_to_get(obtain_from, CHECKOUT / "checkpoints/c2i_XL_384.pt", "policy.checkpoint") == text


def test_the_command_for_a_missing_file_says_its_folder_and_revision() -> None:
    text = how_to_get("hf://owner/repo@v1/a b.pt", Path("/my data/a b.pt"), "policy.checkpoint")
    assert text.startswith("run this: hf download owner/repo 'a b.pt' --revision v1 --local-dir '/my data'; ")
