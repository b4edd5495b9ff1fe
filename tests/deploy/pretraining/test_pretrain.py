"""`pretrain`: its stages in order, what it keeps, and that it can be interrupted."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from actors.rewards.preference import RewardModels, check_preference
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import DataError
from deploy.pretraining import pretrain as module
from deploy.pretraining.preflight import stages_of
from deploy.pretraining.pretrain import Pretraining, pretrain
from deploy.runs.progress_line import stage_text
from tests.deploy.pretraining.conftest import clip_stage

LOGS = ("classifier.jsonl", "tokenizer.jsonl", "policy.jsonl")
FILES = ("tokenizer.safetensors", "policy.safetensors", "classifier.safetensors")


def weights(tmp_path: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((tmp_path / "weights").iterdir())}


def test_every_stage_writes_its_weights_and_clears_its_state_away(from_scratch: Recipe, tmp_path: Path) -> None:
    pretrain(from_scratch, overwrite=False, say=lambda line: None)
    assert weights(tmp_path).keys() == set(FILES)
    left = {path.name for path in (tmp_path / "runs" / "pretrain-try").iterdir()}
    assert left == {*LOGS, "reconstructions.png", "samples.png", "pretrain.html"}


def test_every_stage_says_how_far_it_is_between_its_begin_and_its_end(
    from_scratch: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(from_scratch, overwrite=False, say=lambda line: sys.stderr.write(f"{line}\n"))
    note, *lines, end = capsys.readouterr().err.splitlines()
    assert note == "note: the source has 3 classes of policy.num_classes=10; the others stay untrained"
    assert end.endswith(f"; curves and pictures: {tmp_path}/runs/pretrain-try/pretrain.html")
    heads = [" ".join(line.split()[:3]) for line in lines]
    of_classifier = [head for head in heads if head.startswith("classifier: ")]
    assert of_classifier[1:3] == ["classifier: step 1/3", "classifier: step 3/3"]
    assert of_classifier[3].startswith("classifier: wrote ")
    assert [head.partition(":")[0] for head in heads] == ["classifier"] * 4 + ["tokenizer"] * 4 + ["policy"] * 4


def test_weights_that_are_there_are_kept_unless_they_are_to_be_overwritten(
    from_scratch: Recipe, tmp_path: Path
) -> None:
    pretrain(from_scratch, overwrite=False, say=lambda line: None)
    before = weights(tmp_path)
    (tmp_path / "weights" / "policy.safetensors").unlink()
    said: list[str] = []
    pretrain(from_scratch, overwrite=False, say=said.append)
    assert weights(tmp_path).keys() == before.keys()
    assert sum("is there; kept" in line for line in said) == 2
    longer = with_changes(from_scratch, {"pretrain.classifier.num_steps": 4})
    pretrain(longer, overwrite=True, say=lambda line: None)
    after = weights(tmp_path)
    assert after["classifier.safetensors"] != before["classifier.safetensors"]
    assert after["tokenizer.safetensors"] == before["tokenizer.safetensors"], "it depends on another stage"


@pytest.mark.parametrize("last_words", ["classifier: wrote", "tokenizer: step 3/3", "tokenizer: wrote"])
def test_an_interrupted_pretraining_ends_with_the_weights_of_an_undisturbed_one(
    last_words: str, from_scratch: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain(from_scratch, overwrite=False, say=lambda line: None)
    undisturbed = weights(tmp_path)
    for path in (tmp_path / "weights").iterdir():
        path.unlink()

    def interrupt(line: str) -> str:
        if line.startswith(last_words):
            raise InterruptedError
        return line

    with monkeypatch.context() as patch:
        patch.setattr(module, "stage_text", lambda *facts: interrupt(stage_text(*facts)))
        with pytest.raises(InterruptedError):
            pretrain(from_scratch, overwrite=False, say=interrupt)
    assert weights(tmp_path).keys() < undisturbed.keys()
    pretrain(from_scratch, overwrite=False, say=lambda line: None)
    assert weights(tmp_path) == undisturbed


def test_a_stage_may_start_from_given_weights(from_scratch: Recipe, tmp_path: Path) -> None:
    pretrain(from_scratch, overwrite=False, say=lambda line: None)
    first, second = (tmp_path / "weights" / name for name in (FILES[1], "second.safetensors"))
    still = {"policy.checkpoint": str(second), "pretrain.policy.lr": 1e-30}
    pretrain(
        with_changes(from_scratch, still | {"pretrain.policy.initial_weights": str(first)}),
        overwrite=False,
        say=lambda line: None,
    )
    assert second.read_bytes() == first.read_bytes()


def test_a_clip_is_trained_on_captions_and_judges_by_them(
    from_scratch: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = with_changes(from_scratch, clip_stage(tmp_path))
    monkeypatch.setattr(module, "prompt_of", lambda recipe, text: f"{text} of {recipe.policy.num_classes}")
    pretrain(recipe, overwrite=False, say=lambda line: None)
    path = tmp_path / "weights" / "clip.safetensors"
    trained = path.read_bytes()
    assert check_preference(recipe, "clip") == "clip by ViT-3x128/4 at 32 px (clip.safetensors)"
    scores = RewardModels(recipe, torch.device("cpu")).judge("clip").judge(torch.rand(2, 3, 32, 32), ["a", "b"])
    assert scores.isfinite().all()
    path.unlink()
    monkeypatch.setattr(module, "prompt_of", lambda recipe, text: "always the same")
    pretrain(recipe, overwrite=False, say=lambda line: None)
    assert path.read_bytes() != trained


@pytest.mark.parametrize(("schedule", "moved"), [("constant", range(10)), ("wsd", range(8))])
def test_images_are_moved_by_up_to_the_shift_but_not_while_a_rate_decays(
    tiny_recipe: Recipe, schedule: str, moved: range
) -> None:
    stage = {"num_steps": 10, "batch_size": 16, "lr": 1e-3, "shift": 2, "schedule": schedule}
    recipe = with_changes(tiny_recipe, {"pretrain": {"tokenizer": stage, "policy": stage | {"shift": 0}}})
    assert recipe.pretrain is not None
    pretraining = Pretraining(recipe, stages_of(recipe), torch.device("cpu"), False, lambda _: None)
    plain, shifted = recipe.pretrain.policy, recipe.pretrain.tokenizer
    differ = [
        step
        for step in range(10)
        if not pretraining._batch(plain, step)[0].equal(pretraining._batch(shifted, step)[0])
    ]
    assert differ == list(moved)


def test_a_batch_of_broken_pictures_alone_is_replaced_by_the_next(tiny_recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for number in range(4):
        (tmp_path / "a" / f"{number}.png").write_bytes(b"not a picture")
    stage = {"num_steps": 1, "batch_size": 1, "lr": 1e-3}
    section = {"tokenizer": stage, "policy": stage}
    source = {"kind": "image_folder", "path": str(tmp_path)}
    recipe = with_changes(tiny_recipe, {"source": source, "pretrain": section})
    assert recipe.pretrain is not None
    pretraining = Pretraining(recipe, stages_of(recipe), torch.device("cpu"), False, lambda _: None)
    with pytest.raises(DataError, match=r"none of the images can be read; the first: a/"):
        pretraining._batch(recipe.pretrain.tokenizer, 0)
    Image.new("RGB", (32, 32), "white").save(tmp_path / "a" / "2.png")
    for step in range(4):
        assert (pretraining._batch(recipe.pretrain.tokenizer, step)[0] == 1).all()
