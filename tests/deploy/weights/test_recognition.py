"""Which model a file is of, by keys and shapes alone."""

import json
from pathlib import Path

import pytest

from common.errors import CheckpointError
from common.paths import CHECKOUT
from deploy.weights.recognition import recognise

FILE = Path("weights.pt")
DATA = CHECKOUT / "tests" / "data" / "llamagen"
OFFICIAL = {
    name: {key: tuple(shape) for key, shape in model["state_dict"].items()}
    for name, model in json.loads((DATA / "official_state_dicts.json").read_text()).items()
}


@pytest.mark.parametrize(
    ("official", "name"),
    [
        ("c2i_B", "LlamaGen-B, class-conditional"),
        ("c2i_L", "LlamaGen-L, class-conditional"),
        ("c2i_XL", "LlamaGen-XL, class-conditional"),
        ("c2i_XXL", "LlamaGen-XXL, class-conditional"),
        ("c2i_3B", "LlamaGen-3B, class-conditional"),
        ("t2i_XL", "LlamaGen-XL, text-conditional"),
        ("vq_ds16", "LlamaGen's tokenizer vq16"),
        ("vq_ds8", "LlamaGen's tokenizer vq8"),
    ],
)
def test_the_published_models_are_told_apart(official: str, name: str) -> None:
    recognised, model = recognise(OFFICIAL[official], FILE)
    assert recognised == name
    assert {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()} == OFFICIAL[official]
    assert all(tensor.is_meta for tensor in model.state_dict().values())


def test_the_nearest_is_the_one_with_the_same_keys_and_the_most_equal_shapes() -> None:
    shapes = OFFICIAL["c2i_L"] | {"cls_embedding.embedding_table.weight": (11, 1024)}  # 3B has the same keys
    with pytest.raises(CheckpointError) as caught:
        recognise(shapes, FILE)
    assert "the nearest is LlamaGen-L, class-conditional (wrong shapes: 1 (cls_embedding" in str(caught.value)


def test_a_smaller_tokenizer_is_nearest_to_a_tokenizer_though_a_policy_has_fewer_keys_to_miss() -> None:
    keys = list(OFFICIAL["vq_ds16"])[:180]
    shapes = {key: tuple(max(1, size // 4) for size in OFFICIAL["vq_ds16"][key]) for key in keys}
    with pytest.raises(CheckpointError, match="the nearest is LlamaGen's tokenizer vq16 "):
        recognise(shapes, FILE)


def test_what_the_file_has_to_be_narrows_the_search() -> None:
    assert recognise(OFFICIAL["vq_ds8"], FILE, what="tokenizer")[0] == "LlamaGen's tokenizer vq8"
    with pytest.raises(CheckpointError, match="fit no published policy; the nearest is LlamaGen-"):
        recognise(OFFICIAL["vq_ds8"], FILE, what="policy")
