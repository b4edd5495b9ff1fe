"""Where the small CLIPs of these tests are."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from common.models.clip.clip import ClipAddress
from tests.clips import write_vocabulary


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    return write_vocabulary(tmp_path)


@pytest.fixture
def address_of(vocabulary: Path) -> Callable[..., ClipAddress]:
    """The address of a file of weights, with other fields as given."""

    def made(weights: Path, **changes) -> ClipAddress:
        address = ClipAddress(
            weights=str(weights),
            setting="reward_models.clip",
            activation=None,
            activation_setting="reward_models.clip_activation",
            vocabulary=str(vocabulary),
            vocabulary_setting="reward_models.vocabulary",
            wanted="a CLIP",
            wanted_vocabulary="its merges",
        )
        return replace(address, **changes)

    return made
