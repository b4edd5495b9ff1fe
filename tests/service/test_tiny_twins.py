"""The shipped recipes of the paper's runs, each by its tiny twin: the same code path, as a user runs it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.config.load import load_recipe
from common.models.weights_files import read_weights
from deploy.__main__ import main
from deploy.recipes.tiny.make import (
    CLASS_TABLE,
    JANUS_FILES,
    drawings,
    make_clip,
    make_names,
    with_all_classes,
)
from deploy.service.check import require_sound

RECIPES = Path(__file__).parents[2] / "deploy" / "recipes"
TINY = RECIPES / "tiny"
FIXTURES = Path(__file__).parents[1] / "data" / "llamagen"
NAMES = ["llamagen_xl_c2i", "llamagen_xxl_c2i", "llamagen_xl_t2i", "janus_pro_1b_t2i", "janus_pro_7b_t2i_lora"]
AR_GRPO = ["ar_grpo_xl_c2i", "ar_grpo_xl_t2i"]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return read_weights(path, noun="weights", setting="a test")


def summary_of(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


@pytest.mark.ray
@pytest.mark.chaos
@pytest.mark.parametrize("name", ["llamagen_xl_c2i", "llamagen_xxl_c2i"])
def test_a_class_conditional_twin_trains_and_samples(name: str, tmp_path: Path, no_ray: None) -> None:
    recipe = str(RECIPES / f"{name}_tiny.yaml")
    changes = [f"run.dir={tmp_path}", "ray.object_store_bytes=80000000"]
    assert main(["train", recipe, *changes]) == 0
    run = tmp_path / f"{name}-tiny".replace("_", "-")
    assert summary_of(run)["groups_learned"] == 24
    pictures = tmp_path / "samples"
    checkpoint = run / "checkpoints" / "step-000003"
    sampling = ["--checkpoint", str(checkpoint), "--num", "4", "--out", str(pictures)]
    assert main(["sample", recipe, *changes, *sampling]) == 0
    assert Image.open(pictures / "000003.png").size == (64, 64)


@pytest.mark.ray
@pytest.mark.chaos
@pytest.mark.parametrize("name", AR_GRPO)
def test_a_twin_of_free_running_samples_trains_as_in_one_process(name: str, tmp_path: Path, no_ray: None) -> None:
    recipe, digests = str(RECIPES / f"{name}_tiny.yaml"), set()
    for command in ("train", "local"):
        changes = [f"run.dir={tmp_path / command}", "learner.num_ranks=1", "ray.object_store_bytes=80000000"]
        assert main([command, recipe, *changes]) == 0
        summary = summary_of(tmp_path / command / f"{name}-tiny".replace("_", "-"))
        assert summary["groups_learned"] == 12
        digests.add(summary["weights_sha256"])
    assert len(digests) == 1


@pytest.mark.parametrize("name", [*NAMES, *AR_GRPO])
def test_a_twin_has_all_that_it_reads_beside_it(name: str) -> None:
    twin = load_recipe(RECIPES / f"{name}_tiny.yaml")
    require_sound(twin)
    source = twin.source.names if twin.source.kind == "classes" else twin.source.path
    paths = [source, twin.tokenizer.checkpoint, twin.policy.checkpoint]
    if twin.reward.preferences:
        paths += [twin.reward_models.clip, twin.reward_models.hps, twin.reward_models.vocabulary]
    assert all(path.startswith("deploy/recipes/tiny/") for path in paths)
    assert twin.policy.num_classes == load_recipe(RECIPES / f"{name}.yaml").policy.num_classes


def test_what_the_twins_read_is_small() -> None:
    assert sum(path.stat().st_size for path in TINY.rglob("*") if path.suffix != ".pyc") < 5_000_000


def test_the_shipped_pictures_are_the_drawn_ones() -> None:
    paths = sorted((TINY / "pictures").rglob("*.png"), key=lambda path: path.stem)
    for path, (shape, _, drawn) in zip(paths, drawings(), strict=True):
        assert path.parent.name == shape
        assert np.array_equal(np.asarray(Image.open(path).convert("RGB")), np.asarray(drawn))


@pytest.mark.parametrize("name", ["llamagen_c2i_tiny.pt", "llamagen_c2i_tiny_fsdp.pt"])
def test_the_shipped_generators_are_the_fixtures_with_more_classes(name: str) -> None:
    shipped, fixture = weights(TINY / name), weights(FIXTURES / name)
    assert shipped[CLASS_TABLE].shape == (1001, 64)
    assert torch.equal(
        shipped[CLASS_TABLE][[0, 9, 1000]], fixture[CLASS_TABLE][[0, 9, 10]].to(shipped[CLASS_TABLE])
    )
    assert shipped.keys() == fixture.keys()
    for key, tensor in with_all_classes(fixture).items():
        assert torch.equal(shipped[key], tensor.to(shipped[key].dtype)), key


@pytest.mark.parametrize("name", ["llamagen_vq_tiny.pt", "llamagen_t2i_tiny.pt"])
def test_the_other_shipped_weights_are_the_fixtures(name: str) -> None:
    assert (TINY / name).read_bytes() == (FIXTURES / name).read_bytes()


@pytest.mark.parametrize("name", JANUS_FILES)
def test_the_shipped_janus_is_the_fixture(name: str) -> None:
    assert (TINY / "janus" / Path(name).name).read_bytes() == (FIXTURES.parent / "janus" / name).read_bytes()


def test_the_shipped_judge_and_names_are_what_the_script_makes(tmp_path: Path) -> None:
    make_clip(tmp_path / "clip")
    make_names(tmp_path)
    ours, shipped = (weights(folder / "clip" / "ViT-tiny.pt") for folder in (tmp_path, TINY))
    assert ours.keys() == shipped.keys()
    assert all(torch.equal(ours[name], shipped[name]) for name in ours)
    assert (TINY / "clip" / "ViT-tiny.pt").stat().st_size < 200_000
    for name in ("clip/merges.txt", "classes.txt", "prompts.txt"):
        assert (TINY / name).read_text() == (tmp_path / name).read_text()


@pytest.mark.parametrize("name", AR_GRPO)
def test_a_baseline_s_twin_has_its_rollouts_and_its_reward(name: str) -> None:
    recipe, twin = (load_recipe(RECIPES / f"{name}{suffix}.yaml", []) for suffix in ("", "_tiny"))
    assert recipe.rollout == twin.rollout
    assert recipe.reward.weights == twin.reward.weights == {"clip": 0.05, "hps": 5}
    assert (recipe.learner.prior, recipe.profile) == (twin.learner.prior, "corrected")


@pytest.mark.parametrize("name", [*NAMES, *AR_GRPO])
def test_a_twin_has_the_settings_of_its_recipe(name: str) -> None:
    """But sizes, paths and hardware; some twins have reward actors of their own, so that both placements run."""
    recipe, twin = (load_recipe(RECIPES / f"{name}{suffix}.yaml", []) for suffix in ("", "_tiny"))
    assert (twin.placement, twin.buffer.max_staleness) in (("colocated", 0), ("split", 1))
    for section in ("context", "group"):
        assert getattr(recipe, section).model_dump(exclude={"max_bytes"}) == getattr(twin, section).model_dump(
            exclude={"max_bytes"}
        )
    assert recipe.profile == twin.profile
    assert recipe.source.kind == twin.source.kind
    assert recipe.policy.conditioning == twin.policy.conditioning
    for key in ("lr", "betas", "weight_decay", "max_grad_norm", "clip_range", "advantage_clip", "ce_weight"):
        assert getattr(recipe.learner, key) == getattr(twin.learner, key), key
