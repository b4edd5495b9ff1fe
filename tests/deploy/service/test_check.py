"""What `check` knows of a recipe before a GPU is taken; every problem is one sentence."""

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.atomic import write_json
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import UserError
from common.models import families
from common.models.image_classifier import ImageClassifier
from common.models.weights_files import save_weights
from deploy.__main__ import main
from deploy.service.check import check, require_sound
from tests.clips import reward_models


def problems(recipe: Recipe) -> dict[str, str]:
    """What is wrong, by subject."""
    found = {finding.subject: finding.problem for finding in check(recipe) if finding.problem}
    assert not any("\n" in problem for problem in found.values())
    return found


def test_a_sound_recipe_has_a_word_on_every_subject(recipe: Recipe) -> None:
    findings = list(check(recipe))
    assert [finding.problem for finding in findings] == [None] * 12
    details = {finding.subject: finding.detail for finding in findings}
    assert details.pop("profile") == (
        "corrected: what learns is what sampled, without dropout and with the same 0% of the conditions dropped; "
        "in the authors' scripts (profile=published) the learner alone drops conditions, and has dropout 0.1"
    )
    assert details == {
        "source": "9 images, 0.89 epochs; 3 classes (a, b, c); 32 x 32 px",  # 2 steps of 4 images
        "tokenizer": "307,239 parameters, 8 x 8 tokens of 20 codes",
        "policy": "7,552 parameters",
        "reward": "mse x 1",
        "perceptual": "not used (reward.lpips is 0)",
        "preference": "not used (no weight of reward, and no evaluation.scores)",
        "features": "not used (evaluation.enabled is false)",
        "buffer": "4 groups, 0.0 MB, at most 0 versions stale",
        "checkpoints": "every 50 steps, the 2 newest kept in the run folder",
        "tracking": "the run folder alone",
        "resources": "1 reward actor and 1 learner rank; they reserve 0 GPU and 2 CPU of a cluster, and share the "
        "cores of one machine, however few",
    }
    require_sound(recipe)


def test_the_published_profile_says_how_it_differs(recipe: Recipe) -> None:
    published = with_changes(recipe, {"profile": "published", "context.condition_drop": 0.1})
    (detail,) = (finding.detail for finding in check(published) if finding.subject == "profile")
    assert "the learner alone has dropout 0.1, drops 10% of the conditions, and takes a row a sample (4 " in detail


@pytest.mark.parametrize(
    ("profile", "scale", "said"),
    [
        ("corrected", 1, "of which both profiles learn alike"),
        (
            "corrected",
            2.5,
            "corrected: what learns is what sampled, at a guidance of 2.5; AR-GRPO (profile=published)",
        ),
        (
            "published",
            2.5,
            "drawn at a guidance of 2.5, and old, new and reference log-probabilities are those without",
        ),
    ],
)
def test_of_free_running_samples_the_profiles_differ_in_guidance(
    profile: str, scale: float, said: str, recipe: Recipe
) -> None:
    """Neither drops out nor drops conditions."""
    free = {
        "rollout": {"kind": "free_running", "guidance_scale": scale},
        "reward": {"mse": 0, "lpips": 0, "l1": 0},
    }
    judged = {"reward.python": "math:sqrt", "learner.prior": "kl", "context": {}, "profile": profile}
    found = check(with_changes(recipe, free | judged))
    (detail,) = (finding.detail for finding in found if finding.subject == "profile")
    assert said in detail
    assert "drop" not in detail


@pytest.mark.parametrize(
    ("num_actors", "num_ranks", "processes"),
    [
        (0, 8, "8 learner ranks that also roll out; they reserve 8 GPU and 8 CPU"),
        (2, 1, "2 reward actors and 1 learner rank that also rolls out; they reserve 3 GPU and 3 CPU"),
    ],
)
def test_ranks_that_roll_out_as_well_are_told_so(
    num_actors: int, num_ranks: int, processes: str, recipe: Recipe
) -> None:
    changes = {"actors.count": num_actors, "learner.num_ranks": num_ranks, "placement": "colocated"}
    one_gpu_each = {"actors.num_gpus": 1, "learner.num_gpus": 1}
    step = {"learner.images_per_step": 8, "actors.images_per_ticket": 1, "learner.micro_batch_size": 1}
    colocated = with_changes(recipe, changes | one_gpu_each | step)
    (detail,) = (finding.detail for finding in check(colocated) if finding.subject == "resources")
    assert detail.startswith(processes)


@pytest.mark.parametrize(
    ("changes", "subject", "sentence"),
    [
        (
            {"reward.lpips": 1, "perceptual": {"family": "lpips", "net": "vgg"}},
            "perceptual",
            "The vgg trunk of LPIPS is missing: a run downloads vgg16-397923af.pth from https://",
        ),
        (
            {"policy.checkpoint": "hf://owner/model@v1/policy.pt"},
            "policy",
            "is not in this machine's cache yet: a run fetches it, or run this: hf download owner/model policy.pt "
            "--revision v1",
        ),
    ],
)
def test_the_command_says_what_is_missing_and_fetches_nothing(
    changes: dict[str, Any],
    subject: str,
    sentence: str,
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    path = tmp_path / "recipe.json"
    write_json(path, with_changes(recipe, changes).model_dump(mode="json"))
    assert main(["check", str(path)]) == 2
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("NO"))
    assert line.split()[1] == subject
    assert sentence in line


@pytest.mark.parametrize("section", ["tokenizer", "policy"])
def test_missing_weights_are_named_with_where_to_get_them(section: str, recipe: Recipe) -> None:
    changes = {
        f"{section}.checkpoint": "/nowhere/gone.pt",
        f"{section}.obtain_from": "https://example.org/gone.pt",
    }
    assert problems(with_changes(recipe, changes)) == {
        section: f"There is no {section} weights file /nowhere/gone.pt: get it from https://example.org/gone.pt, "
        f"or point {section}.checkpoint at a file that exists."
    }


@pytest.mark.parametrize(
    ("changes", "tensor"),
    [
        ({"tokenizer.size.codebook_dim": 8}, "quantize.embedding.weight is [20, 4] and must be [20, 8]"),
        ({"policy.num_classes": 7}, "cls_embedding.embedding_table.weight is [11, 16] and must be [8, 16]"),
    ],
)
def test_weights_of_another_shape_are_refused_by_the_tensors_name(
    changes: dict[str, Any], tensor: str, recipe: Recipe
) -> None:
    ((section, problem),) = problems(with_changes(recipe, changes)).items()
    assert section == next(iter(changes)).partition(".")[0]
    assert tensor in problem
    assert recipe.policy.checkpoint in problem or recipe.tokenizer.checkpoint in problem


def test_weights_of_another_model_are_refused(recipe: Recipe) -> None:
    swapped = with_changes(recipe, {"policy.checkpoint": recipe.tokenizer.checkpoint})
    assert "unexpected keys: " in problems(swapped)["policy"]


def test_a_truncated_weights_file_is_refused_with_its_size(recipe: Recipe, tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(Path(recipe.policy.checkpoint).read_bytes()[:1000])
    problem = problems(with_changes(recipe, {"policy.checkpoint": str(cut)}))["policy"]
    assert f"The policy weights {cut} (1000 bytes) cannot be read" in problem


def test_a_folder_without_a_picture_is_refused(recipe: Recipe, pictures: Path) -> None:
    for path in pictures.rglob("*.png"):
        path.rename(path.with_suffix(".txt"))
    problem = problems(recipe)["source"]
    assert f"source.path {pictures} has no images for the train split: put pictures (.bmp, .jpeg" in problem


def test_a_folder_that_is_not_there_is_refused(recipe: Recipe) -> None:
    changed = with_changes(recipe, {"source.path": "/nowhere"})
    assert problems(changed) == {
        "source": "source.path is /nowhere, which is no folder: name a folder of class folders"
    }


def test_files_that_are_no_pictures_are_refused_with_one_of_their_names(recipe: Recipe, pictures: Path) -> None:
    for path in pictures.rglob("*.png"):
        path.write_text("not a picture")
    problem = problems(recipe)["source"]
    assert "none of the images tried can be read; the last: " in problem
    assert ".png is not a readable image: " in problem


def test_one_readable_picture_is_enough(recipe: Recipe, pictures: Path) -> None:
    for path in list(pictures.rglob("*.png"))[1:]:
        path.write_text("not a picture")
    source = {"kind": "image_folder", "path": str(pictures)}  # nothing held out
    assert problems(with_changes(recipe, {"source": source})) == {}


def test_images_of_another_size_than_the_source_gives_are_refused(recipe: Recipe) -> None:
    changed = with_changes(recipe, {"source": {"kind": "mnist"}, "image_size": 64})
    assert problems(changed)["source"] == "image_size is 64, but the mnist source gives 32: set image_size=32"


def test_a_perceptual_metric_without_maps_is_refused_under_token_credit_alone(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnlyFar:
        """Says how far two pictures are apart, not where."""

    by_sample = with_changes(recipe, {"reward.lpips": 1})
    by_token = with_changes(by_sample, {"advantage.credit": "token"})
    assert problems(by_token) == {}
    monkeypatch.setitem(families.PERCEPTUAL_METRICS, "shift_tolerant_lpips", lambda spec, trained: OnlyFar())
    assert problems(by_sample) == {}
    assert problems(by_token)["perceptual"].startswith(
        "advantage.credit is token, but the perceptual metric OnlyFar"
    )


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"reward.python": {"tests.own_terms:term": 0.5}, "reward.l1": 2}, "mse x 1, l1 x 2, term x 0.5"),
        ({"reward.mse": 0}, "none: the prior alone"),
    ],
)
def test_the_terms_of_the_reward_are_listed_with_their_weights(
    recipe: Recipe, changes: dict[str, Any], detail: str
) -> None:
    (found,) = (finding for finding in check(with_changes(recipe, changes)) if finding.subject == "reward")
    assert (found.problem, found.detail) == (None, detail)


def test_a_term_of_one_s_own_that_cannot_be_had_is_a_problem_of_the_reward(recipe: Recipe) -> None:
    for weight in (1, 0):
        gone = with_changes(recipe, {"reward.python": {"tests.own_terms:gone": weight}})
        assert problems(gone) == {
            "reward": "reward.python names tests.own_terms:gone, but the module tests.own_terms has no gone"
        }


def test_missing_weights_of_the_perceptual_metric_are_refused_where_it_is_used(recipe: Recipe) -> None:
    changed = with_changes(recipe, {"perceptual.weights": "/nowhere/alex.pth"})
    assert problems(changed) == {}
    changed = with_changes(changed, {"reward.lpips": 1})
    assert problems(changed) == {"perceptual": "perceptual.weights names /nowhere/alex.pth, which is not a file."}


def test_the_models_of_preferences_are_named_or_said_to_be_missing(recipe: Recipe, tmp_path: Path) -> None:
    models = reward_models(tmp_path).model_dump(mode="json")
    judged = with_changes(recipe, {"reward_models": models, "reward.hps": 5, "reward.aesthetic": 1})
    (detail,) = (finding.detail for finding in check(judged) if finding.subject == "preference")
    assert detail.startswith(
        "hps by ViT-3x128/8 at 32 px (hps.pt); aesthetic by ViT-3x128/8 at 32 px (head.pth); pro"
    )
    assert detail.endswith(("“a photo of a a”", "“a photo of a b”", "“a photo of a c”"))
    missing = with_changes(recipe, {"reward.pickscore": 1})
    assert "hf download yuvalkirstain/PickScore_v1" in problems(missing)["preference"]
    scored = with_changes(recipe, {"evaluation.scores": ["clip"]})
    assert "preference" not in problems(scored)  # evaluation.enabled is false


def test_an_evaluation_needs_its_classifier_and_held_out_images(recipe: Recipe, tmp_path: Path) -> None:
    weights = tmp_path / "classifier.safetensors"
    evaluated = with_changes(recipe, {"evaluation.enabled": True, "evaluation.classifier": str(weights)})
    assert f"There is no evaluation.classifier weights file {weights}" in problems(evaluated)["features"]
    save_weights(ImageClassifier(num_classes=9).state_dict(), weights)
    assert "to_logits.weight is [9, 64] and must be [10, 64]" in problems(evaluated)["features"]
    save_weights(ImageClassifier(num_classes=10).state_dict(), weights)
    assert problems(evaluated) == {}
    nothing_held_out = with_changes(evaluated, {"source.held_out_fraction": 0})
    assert "set source.held_out_fraction above 0" in problems(nothing_held_out)["source"]


def test_an_evaluation_by_inception_needs_its_weights_and_a_reference_of_its_features(
    recipe: Recipe, inception_weights: Path, tmp_path: Path
) -> None:
    section = {"enabled": True, "features": "inception", "inception_weights": "/nowhere/inception.pth"}
    evaluated = with_changes(recipe, {"evaluation": section})
    problem = problems(evaluated)["features"]
    assert problem.startswith(
        "There is no evaluation.inception_weights file /nowhere/inception.pth: run this: curl --location "
    )
    reference = tmp_path / "reference.npz"
    evaluated = with_changes(
        evaluated,
        {"evaluation.inception_weights": str(inception_weights), "evaluation.reference": str(reference)},
    )
    np.savez(reference, mu=np.zeros(64), sigma=np.eye(64))
    assert "evaluation.features gives 2048 numbers a picture" in problems(evaluated)["features"]
    np.savez(reference, mu=np.zeros(2048), sigma=np.eye(2048))
    (detail,) = (finding.detail for finding in check(evaluated) if finding.subject == "features")
    assert detail == "inception, 23,850,960 parameters; reference: mu and sigma"


def test_one_problem_does_not_hide_another_and_all_are_raised_together(recipe: Recipe) -> None:
    changes = {"policy.checkpoint": "gone.pt", "tokenizer.checkpoint": "gone.pt", "source.path": "gone"}
    changed = with_changes(recipe, changes)
    assert list(problems(changed)) == ["source", "tokenizer", "policy"]
    with pytest.raises(UserError) as caught:
        require_sound(changed)
    assert str(caught.value).splitlines() == list(problems(changed).values())


def test_scores_that_are_asked_for_must_be_enabled_or_said_to_be_off(recipe: Recipe) -> None:
    asked = with_changes(recipe, {"evaluation.compare_prior": True})
    assert problems(asked) == {}, "enabled is false, by the recipe"
    tree = asked.model_dump(mode="json")
    del tree["evaluation"]["enabled"]
    assert problems(Recipe.model_validate(tree)) == {
        "features": "evaluation.compare_prior is set and evaluation.enabled is not: set it to true, or to false"
    }


def test_checking_needs_no_memory_for_the_models(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint of gigabytes is checked by its header."""

    def no_reading(*_: object, **__: object) -> None:
        raise AssertionError("the numbers were read")

    monkeypatch.setattr("common.models.weights_files.read_tensors", no_reading)
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", no_reading)
    assert problems(recipe) == {}


@pytest.mark.parametrize(
    ("changes", "subject", "sentence"),
    [
        (
            {"compute.device": "cuda"},
            "resources",
            "compute.device is cuda, but actors.num_gpus is 0 and learner.num",
        ),
        (
            {
                "compute.device": "cuda",
                "actors.num_gpus": 1,
                "learner.num_gpus": 1,
                "reward.python": "tests.own_terms:term",
                "reward.actors.count": 1,
            },
            "resources",
            "compute.device is cuda, but reward.actors.num_gpus is 0",
        ),
        (
            {"compute.device": "cuda", "actors.num_gpus": 1},
            "resources",
            "actors.num_gpus is 1 and learner.num_gpus 0",
        ),
    ],
)
def test_keys_that_would_do_nothing_or_fail_on_the_cluster_are_said_before(
    recipe: Recipe, changes: dict[str, Any], subject: str, sentence: str
) -> None:
    assert sentence in problems(with_changes(recipe, changes))[subject]


def test_judge_actors_are_counted_with_what_they_judge_and_what_is_on_the_way_to_them(recipe: Recipe) -> None:
    changes = {
        "reward.python": "tests.own_terms:term",
        "reward.actors": {"count": 3, "num_gpus": 0.5, "num_cpus": 2},
        "image_size": 32,
    }
    details = {finding.subject: finding.detail for finding in check(with_changes(recipe, changes))}
    assert details["resources"].startswith(
        "1 reward actor, 3 judge actors and 1 learner rank; they reserve 1.5 GPU and 8 CPU of a cluster"
    )
    assert details["reward"].endswith("; term by 3 judge actors")
    size = recipe.learner.images_per_step * 3 * 32**2 * (recipe.group.size + 1) / 1e6
    assert details["buffer"].endswith(f"; at most {size:.1f} MB of their pictures on the way to judge actors")
