"""What `pretrain` refuses before its first stage, a sentence a problem."""

import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from actors.sources.image_folder import ImageFolder
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import RecipeError, UserError
from common.models.image_classifier import ImageClassifier
from common.models.weights_files import save_weights
from deploy.pretraining.pretrain import pretrain
from tests.deploy.pretraining.conftest import clip_stage

Usage = namedtuple("Usage", "total used free")


def problems(recipe: Recipe, tmp_path: Path, overwrite: bool = False) -> list[str]:
    """Its refusal; nothing has been trained, and nothing said."""
    said: list[str] = []
    with pytest.raises(UserError) as caught:
        pretrain(recipe, overwrite=overwrite, say=said.append)
    assert said == []
    assert not list(tmp_path.rglob("weights/tokenizer.safetensors"))
    return str(caught.value).splitlines()


def test_a_recipe_without_the_section_is_refused_with_the_command_that_writes_one(recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match=r"no `pretrain` section: .* `python -m deploy init`"):
        pretrain(recipe, overwrite=False, say=print)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (
            "evaluation.classifier",
            "",
            "evaluation.classifier is empty, and pretrain.classifier writes its weights",
        ),
        ("policy.checkpoint", "hf://o/r/p.safetensors", "which pretrain.policy cannot write: name a .safetensors"),
        ("policy.checkpoint", "{tmp_path}", "a folder: name a .safetensors file for pretrain.policy to write"),
        ("tokenizer.checkpoint", "weights/vq.pt", "is weights/vq.pt, and pretrain writes safetensors: name it"),
        (
            "policy.checkpoint",
            "{tmp_path}/weights/tokenizer.safetensors",
            "policy.checkpoint and tokenizer.checkpoint are both {tmp_path}/weights/tokenizer.safetensors",
        ),
    ],
)
def test_an_output_that_cannot_be_one_is_refused(
    key: str, value: str, words: str, from_scratch: Recipe, tmp_path: Path
) -> None:
    value, words = value.format(tmp_path=tmp_path), words.format(tmp_path=tmp_path)
    (problem,) = problems(with_changes(from_scratch, {key: value}), tmp_path)
    assert problem.startswith(key)
    assert words in problem


@pytest.mark.parametrize(("key", "named"), [("policy.checkpoint", "policy.checkpoint"), ("run.dir", "run.dir")])
def test_a_folder_that_cannot_be_written_to_is_refused(
    key: str, named: str, from_scratch: Recipe, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "policy.safetensors"
    (problem,) = problems(with_changes(from_scratch, {key: str(path)}), tmp_path)
    assert problem.startswith(f"nothing can be written to {tmp_path}/file")
    assert f"(Not a directory): point {named} at a folder" in problem or "(File exists)" in problem


def test_a_disk_without_room_for_the_models_is_refused(
    from_scratch: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 10**12, 10**6))
    found = problems(from_scratch, tmp_path)
    assert len(found) == 2  # of the weights, of the states
    assert f"{tmp_path}/weights has 1 MB free, and the models of this recipe need 5 MB there" in found[0]


def test_fewer_pictures_than_a_batch_are_refused(from_scratch: Recipe, tmp_path: Path) -> None:
    (problem,) = problems(with_changes(from_scratch, {"pretrain.policy.batch_size": 10}), tmp_path)
    assert problem == (
        "the source has 9 training images and pretrain.policy.batch_size is 10: lower it to at most 9, or add "
        "pictures"
    )


def test_pictures_that_cannot_be_read_are_refused(from_scratch: Recipe, pictures: Path, tmp_path: Path) -> None:
    for path in pictures.rglob("*.png"):
        path.write_text("not a picture")
    (problem,) = problems(from_scratch, tmp_path)
    assert problem.startswith("none of the images tried can be read; the last: ")


def test_a_classifier_of_one_class_is_refused(from_scratch: Recipe, pictures: Path, tmp_path: Path) -> None:
    for name in "bc":
        shutil.rmtree(pictures / name)
    changes = {"policy.num_classes": 1, "source.held_out_fraction": 0}
    (problem,) = problems(with_changes(from_scratch, changes), tmp_path)
    assert problem.startswith("policy.num_classes is 1, and a classifier needs two classes: leave pretrain.class")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"perceptual.weights": "/nowhere/alex.pth"}, "perceptual.weights names /nowhere/alex.pth, which is not"),
        ({"image_size": 16}, "Images of (16, 16) pixels are too small for shift-tolerant LPIPS"),
    ],
)
def test_the_metric_of_the_tokenizer_s_loss_must_be_there_and_take_the_images(
    changes: dict[str, Any], words: str, from_scratch: Recipe, tmp_path: Path
) -> None:
    (problem,) = problems(with_changes(from_scratch, changes), tmp_path)
    assert words in problem


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reward_models.activation": "unknown"}, "reward_models.activation is unknown, and the weights that"),
        ({"reward_models.vocabulary": "/nowhere"}, "There is no vocabulary of CLIP at /nowhere: point reward_mod"),
        ({"image_size": 36}, "image_size is 36, and pretrain.clip cuts 8 patches along a side"),
    ],
)
def test_what_a_clip_is_made_of_must_be_said(
    changes: dict[str, Any], words: str, from_scratch: Recipe, tmp_path: Path
) -> None:
    (problem, *_) = problems(with_changes(from_scratch, clip_stage(tmp_path) | changes), tmp_path)
    assert problem.startswith(words)


def test_pictures_without_a_word_train_no_clip(
    from_scratch: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = with_changes(from_scratch, clip_stage(tmp_path))
    read = ImageFolder.read
    monkeypatch.setattr(ImageFolder, "read", lambda self, index: replace(read(self, index), text=""))
    (problem,) = problems(recipe, tmp_path)
    assert problem.endswith("which a CLIP learns from: leave pretrain.clip out")


def test_weights_to_keep_and_to_begin_with_must_fit(from_scratch: Recipe, tmp_path: Path) -> None:
    save_weights(ImageClassifier(num_classes=7).state_dict(), tmp_path / "weights" / "classifier.safetensors")
    changed = with_changes(from_scratch, {"pretrain.policy.initial_weights": "/nowhere/gone.safetensors"})
    kept, first = problems(changed, tmp_path)
    assert "to_logits.weight is [7, 64] and must be [10, 64]" in kept
    assert first.startswith("There is no pretrain.policy.initial_weights weights file /nowhere/gone.safetensors")
    assert problems(changed, tmp_path, overwrite=True) == [first]


@pytest.mark.parametrize(
    ("content", "words"),
    [("damaged", "cannot be read"), ("of another model", "is of another model (missing keys")],
)
def test_a_state_that_cannot_be_gone_on_from_is_refused(
    content: str, words: str, from_scratch: Recipe, tmp_path: Path
) -> None:
    path = tmp_path / "runs" / "pretrain-try" / "policy.pt"
    path.parent.mkdir(parents=True)
    if content == "damaged":
        path.write_bytes(b"no state")
    else:
        torch.save({"model": {"weight": torch.zeros(1)}, "optimizer": {}, "step": 1}, path)
    (problem,) = problems(from_scratch, tmp_path)
    assert problem.startswith(f"{path}, which an interrupted pretraining left, {words}")
    assert problem.endswith(": delete it")


def test_problems_are_told_together(from_scratch: Recipe, tmp_path: Path) -> None:
    changes = {"source.path": "/nowhere", "perceptual.weights": "/nowhere/alex.pth"}
    found = problems(with_changes(from_scratch, changes), tmp_path)
    assert [line.partition(" ")[0] for line in found] == ["source.path", "perceptual.weights"]
