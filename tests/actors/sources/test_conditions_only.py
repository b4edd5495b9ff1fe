"""Classes and prompts without pictures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.sources.build import build_source
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import DataError
from tests.common.config.test_rollout import FREE

TEXT: dict[str, Any] = {"policy.conditioning": "text", "policy.caption_dim": 6, "policy.caption_length": 5}


def free(recipe: Recipe, source: dict[str, Any], **changes: Any) -> Recipe:
    own = {"reward.classifier": 0, "reward.python": "tests.own_terms:term"}
    return with_changes(recipe, FREE | own | {"source": source} | changes)


def test_each_class_comes_once_with_its_name_and_without_pixels(tiny_recipe: Recipe, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"digit {label}" for label in range(10)) + "\n")
    source = build_source(free(tiny_recipe, {"kind": "classes", "names": str(names)}), "train")
    images = [source.read(index) for index in range(len(source))]
    assert [int(image.condition["label"]) for image in images] == list(range(10))
    assert [image.text for image in images] == list(source.class_names) == [f"digit {n}" for n in range(10)]
    assert images[3].pixels.shape == (0, 0, 3)
    assert len({image.image_id for image in images}) == 10
    nameless = build_source(free(tiny_recipe, {"kind": "classes"}), "train")
    assert (len(nameless), nameless.class_names) == (10, ())
    assert nameless.read(4).text == ""


def test_each_prompt_comes_once_with_its_features(tiny_recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("\ufeffa red cat\n\n  ein Fuß \n", encoding="utf-8")
    section = {"kind": "prompts", "path": str(path), "text_encoder": "words:6"}
    source = build_source(free(tiny_recipe, section, **TEXT), "train")
    images = [source.read(index) for index in range(len(source))]
    assert [image.text for image in images] == ["a red cat", "ein Fuß"]
    assert [int(image.condition["caption_mask"].sum()) for image in images] == [3, 2]
    assert np.isfinite(images[0].condition["caption_features"]).all()


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read"), ("\n \n", "holds no prompt"), (b"\xff\xfe\xfa", "no UTF-8 text")],
)
def test_a_file_without_prompts_is_said(tiny_recipe: Recipe, tmp_path: Path, content: Any, said: str) -> None:
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    section = {"kind": "prompts", "path": str(path), "text_encoder": "words:6"}
    with pytest.raises(DataError, match=said):
        build_source(free(tiny_recipe, section, **TEXT), "train")


def test_names_that_do_not_fit_the_classes_and_held_out_pictures_are_refused(
    tiny_recipe: Recipe, tmp_path: Path
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("one\ntwo\n")
    recipe = free(tiny_recipe, {"kind": "classes", "names": str(names)})
    with pytest.raises(DataError, match=r"2 lines and policy\.num_classes is 10"):
        build_source(recipe, "train")
    with pytest.raises(DataError, match="no held-out pictures"):
        build_source(free(tiny_recipe, {"kind": "classes"}), "held_out")
