"""`sample` from its options to the folder, drawn in this process."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from actors.evaluation.conditions import class_labels
from actors.rollout_actor import ActorJob
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import CheckpointError, DataError, RecipeError
from common.models.families import build_policy
from common.models.llamagen.transformer import LlamaGenTransformer
from common.models.weights_files import save_weights
from common.weights.snapshot import weights_sha256
from deploy.sampling.options import SampleOptions
from deploy.sampling.sample import sample
from tests.deploy.sampling.conftest import LINES, InProcess


@pytest.fixture
def fives(recipe: Recipe) -> Recipe:
    return with_changes(recipe, {"sampling.batch_size": 5, "actors.count": 2})


def pngs(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def test_pictures_an_archive_and_a_grid_are_left(fives: Recipe, tmp_path: Path) -> None:
    runner = InProcess()
    shown = sample(fives, SampleOptions(tmp_path / "out", num=12), runner)
    assert shown == tmp_path / "out" / "grid.png"
    assert list(pngs(tmp_path / "out")) == [*(f"{index:06d}.png" for index in range(12)), "grid.png"]
    assert [chunk.sample_indices for chunk in runner.chunks] == [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9), (10, 11)]
    archive = np.load(tmp_path / "out" / "samples.npz")
    assert archive["labels"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert archive["arr_0"].shape == (12, 32, 32, 3)
    for index in (0, 11):
        picture = np.asarray(Image.open(tmp_path / "out" / f"{index:06d}.png"))
        np.testing.assert_array_equal(picture, archive["arr_0"][index])


def test_an_interrupted_call_draws_only_what_is_missing_and_ends_with_the_same_bytes(
    fives: Recipe, tmp_path: Path
) -> None:
    options = SampleOptions(tmp_path / "parts", num=12)
    with pytest.raises(KeyboardInterrupt):
        sample(fives, options, InProcess(dies_after=2))
    assert len(pngs(tmp_path / "parts")) == 7
    (tmp_path / "parts" / "000006.png").unlink()
    kept = (tmp_path / "parts" / "000005.png").stat().st_mtime_ns
    again = InProcess()
    sample(fives, options, again)
    assert [chunk.sample_indices[0] for chunk in again.chunks] == [0, 5]  # whole chunks, for their arithmetic
    assert (tmp_path / "parts" / "000005.png").stat().st_mtime_ns == kept
    sample(fives, SampleOptions(tmp_path / "whole", num=12), InProcess())
    assert pngs(tmp_path / "parts") == pngs(tmp_path / "whole")
    npz = [(tmp_path / name / "samples.npz").read_bytes() for name in ("parts", "whole")]
    assert npz[0] == npz[1]


def test_a_complete_folder_starts_no_actor(fives: Recipe, tmp_path: Path) -> None:
    options = SampleOptions(tmp_path / "out", num=3)
    sample(fives, options, InProcess())
    (tmp_path / "out" / "samples.npz").unlink()
    again = InProcess()
    sample(fives, options, again)
    assert again.recipe is None
    assert (tmp_path / "out" / "samples.npz").is_file()


def test_actors_need_no_metric_no_compiler_and_not_more_of_them_than_chunks(
    fives: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_blocks(_: LlamaGenTransformer) -> None:
        raise AssertionError("for weights that are only read, or a few forwards")

    monkeypatch.setattr(LlamaGenTransformer, "compile_blocks", compile_blocks)
    runner = InProcess()
    recipe = with_changes(
        fives,
        {"reward.lpips": 1, "compute.compile": True, "actors.count": 6, "actors.autoscale": {"min": 5, "max": 6}},
    )
    sample(recipe, SampleOptions(tmp_path / "out", num=7), runner)
    assert runner.recipe == with_changes(recipe, {"actors.count": 2, "actors.autoscale": None})
    assert runner.job == ActorJob(checkpoint=None, only_draws=True)


def test_the_weights_to_draw_with_are_those_of_the_call(fives: Recipe, tiny_weights: Path, tmp_path: Path) -> None:
    runner = InProcess()
    checkpoint = str(tmp_path / "other.safetensors")
    torch.manual_seed(1)
    other = build_policy(fives.policy, codebook_size=20, grid_size=fives.grid_size)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_weights(other.state_dict(), checkpoint)
    sample(fives, SampleOptions(tmp_path / "out", num=3, checkpoint=checkpoint), runner)
    assert runner.job == ActorJob(checkpoint, only_draws=True)
    sample(fives, SampleOptions(tmp_path / "recipes", num=3), InProcess())
    recorded = [
        json.loads((tmp_path / folder / "sampling.json").read_text())["weights_sha256"]
        for folder in ("out", "recipes")
    ]
    assert recorded[0] == weights_sha256(other.state_dict())
    assert recorded[0] != recorded[1]
    assert pngs(tmp_path / "out") != pngs(tmp_path / "recipes")


def test_uniform_classes_and_an_output_size_reach_the_archive(fives: Recipe, tmp_path: Path) -> None:
    recipe = with_changes(fives, {"sampling.classes": "uniform", "sampling.output_size": 24})
    sample(recipe, SampleOptions(tmp_path / "out", num=6, seed=4), InProcess())
    archive = np.load(tmp_path / "out" / "samples.npz")
    assert archive["arr_0"].shape == (6, 24, 24, 3)
    assert archive["labels"].tolist() == class_labels("uniform", 10, 4, range(6), lambda: None).tolist()


def test_other_settings_and_missing_weights_leave_a_folder_as_it_is(fives: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(CheckpointError):
        sample(fives, SampleOptions(out, num=3, checkpoint="/nowhere.pt"), InProcess())
    assert not out.exists()
    sample(fives, SampleOptions(out, num=3), InProcess())
    before = pngs(out)
    with pytest.raises(DataError, match=r"made with sampling\.temperature 1\.0, and this call has 0\.5"):
        sample(with_changes(fives, {"sampling.temperature": 0.5}), SampleOptions(out, num=3), InProcess())
    assert pngs(out) == before


def test_geneval_folders_hold_the_prompts_own_line_its_pictures_and_a_grid(
    text_recipe: Recipe, tiny_t5: Path, prompt_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    recipe = with_changes(text_recipe, {"sampling.batch_size": 3, "sampling.guidance_scale": 2})
    options = SampleOptions(out, prompts=prompt_file, text_encoder=str(tiny_t5), layout="geneval", per_prompt=4)
    runner = InProcess()
    assert sample(recipe, options, runner) == out
    folders = ("00000", "00001")
    names = [[f"{folder}/grid.png", *(f"{folder}/samples/{n:05d}.png" for n in range(4))] for folder in folders]
    assert list(pngs(out)) == [*names[0], *names[1]]
    for folder, line in zip(folders, prompt_file.read_text().splitlines(), strict=True):
        assert (out / folder / "metadata.jsonl").read_text() == line + "\n"
    assert json.loads((out / "00001" / "metadata.jsonl").read_text()) == LINES[1]
    # chunks cross prompts: samples 3, 4, 5 are the last of one and two of the other
    captions = [[len(caption) for caption in chunk.captions or ()] for chunk in runner.chunks]
    assert captions == [[4, 4, 4], [4, 3, 3], [3, 3]]
    assert Image.open(out / "00000" / "grid.png").size == (192, 192)  # 2 x 2
    assert len(set(pngs(out).values())) == 10


def test_text_prompts_lie_flat_and_are_no_geneval(text_recipe: Recipe, tiny_t5: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red photo\ngreen grass\nblue\n")
    flat = SampleOptions(tmp_path / "out", prompts=prompts, text_encoder=str(tiny_t5))
    sample(text_recipe, flat, InProcess())
    assert list(pngs(tmp_path / "out")) == ["000000.png", "000001.png", "000002.png", "grid.png"]
    assert list(np.load(tmp_path / "out" / "samples.npz")) == ["arr_0"]
    geneval = SampleOptions(tmp_path / "new", prompts=prompts, text_encoder=str(tiny_t5), layout="geneval")
    with pytest.raises(DataError, match=r"--prompts is a plain text file: name a \.jsonl file"):
        sample(text_recipe, geneval, InProcess())
    assert not (tmp_path / "new").exists()


def test_the_overview_has_each_prompt_beside_its_pictures(
    text_recipe: Recipe, tiny_t5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    monkeypatch.setattr("deploy.sampling.layout.save_panels", lambda path, panels: None)
    monkeypatch.setattr("deploy.sampling.layout.grid", lambda *given: shown.append(given) or given[0][0])
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red photo\ngreen grass\n")
    for per_prompt in (1, 3, 12):
        options = SampleOptions(
            tmp_path / str(per_prompt), prompts=prompts, text_encoder=str(tiny_t5), per_prompt=per_prompt
        )
        sample(text_recipe, options, InProcess())
    (one, *of_one), (three, *of_three), (ten, *of_ten) = shown
    assert of_one == [10, ("a red photo", "green grass")]
    assert of_three == [3, ("a red photo",) * 3 + ("green grass",) * 3]
    assert of_ten == [10, ("a red photo",) * 10 + ("green grass",) * 10]
    assert [len(pixels_NHWC) for pixels_NHWC in (one, three, ten)] == [2, 6, 20]
    second = np.asarray(Image.open(tmp_path / "12" / "000012.png"))  # the other prompt's first
    np.testing.assert_array_equal(ten[10], second)


def test_other_prompts_are_refused(text_recipe: Recipe, tiny_t5: Path, prompt_file: Path, tmp_path: Path) -> None:
    options = SampleOptions(tmp_path / "out", prompts=prompt_file, text_encoder=str(tiny_t5))
    sample(text_recipe, options, InProcess())
    prompt_file.write_text(prompt_file.read_text().replace("red", "blue"))
    with pytest.raises(DataError, match="made with prompts_sha256"):
        sample(text_recipe, options, InProcess())


def test_a_text_conditional_policy_without_prompts_is_refused(text_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"policy\.conditioning is text"):
        sample(text_recipe, SampleOptions(tmp_path / "out"), InProcess())
