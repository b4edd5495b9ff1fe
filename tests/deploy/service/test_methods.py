"""The methods beside GRPO in the service, on a stand-in for Ray: equal to `local`, resumed, replayed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import RecipeError
from common.models.loading import load_tokenizer
from deploy.runs.local_run import run_local
from deploy.runs.replay import replay
from deploy.service.driver import Parts, train
from deploy.weights.conversion import convert
from tests.fakes import FakeRay, FakeSession
from tests.service.reading import digest, lines

COLOCATED = {"placement": "colocated", "actors.count": 0}
SHORT = {"learner.num_steps": 2, "learner.images_per_step": 4}
METHODS: dict[str, dict[str, Any]] = {
    "straight through": {**SHORT, "learner.method": "ste", "ste.sample": "gumbel", "reward.lpips": 0.5},
    "reAR's regulariser": {**SHORT, "learner.embedding_weight": 1.0, "reward.lpips": 0},
    "decoder": {**SHORT, "learner.method": "decoder", "group.size": 1},
    "decoder, average and discriminator": {
        **SHORT,
        "learner.method": "decoder",
        "group.size": 1,
        "reward.lpips": 0,
        "decoder": {"ema_weight": 1.0, "ema_decay": 0.5, "gan_weight": 0.5, "gan_lr": 1e-3},
    },
}


def served(recipe: Recipe) -> Path:
    ray = FakeRay()
    return train(recipe, Parts(ray=ray, session=FakeSession(ray))).folder.path


def trained(run: Path) -> dict[str, Any]:
    """The weights at the end of a run of the service."""
    (path,) = (run / "checkpoints" / "step-000002").glob("[pt]*.safetensors")
    return load_file(path)


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in lines(run / "metrics.jsonl")]


@pytest.mark.parametrize("changes", METHODS.values(), ids=METHODS)
def test_split_colocated_and_resumed_give_the_losses_and_weights_of_local_bit_for_bit(small_run, changes):
    local = run_local(small_run("local", changes)).path
    expected = losses(local)
    assert expected[0] != expected[-1]
    two = served(small_run("two", changes | {"actors.count": 2}))
    served(small_run("resumed", changes | {"learner.num_steps": 1}))
    resumed = served(small_run("resumed", changes))
    colocated = served(small_run("colocated", changes | COLOCATED))
    for run in (two, resumed, colocated):
        assert losses(run) == pytest.approx(expected, rel=0, abs=1e-6)
        assert digest(run) == digest(local)


@pytest.mark.parametrize("changes", METHODS.values(), ids=METHODS)
def test_recorded_groups_are_learned_from_again(small_run, changes):
    run = served(small_run("run", changes | {"record.groups": True}))
    again = replay(str(run), [])
    assert again.largest_difference == pytest.approx(0, abs=1e-6)
    assert digest(again.folder.path) == digest(run)


def test_the_published_form_of_ste_has_raw_codes_and_dropout_and_is_a_function_of_its_seed(small_run):
    changes = METHODS["straight through"] | {"context.condition_drop": 0.5}
    published = changes | {"profile": "published"}
    one, again = (served(small_run(name, published)) for name in ("one", "again"))
    assert losses(one) == losses(again)
    assert losses(one)[0] != losses(served(small_run("corrected", changes)))[0]


def test_the_decoder_alone_is_trained_and_its_weights_are_a_tokenizer_that_converts(small_run, tmp_path):
    recipe = small_run("run", METHODS["decoder"])
    run = served(recipe)
    before, after = load_file(recipe.tokenizer.checkpoint), trained(run)
    changed = {name for name in before if not (before[name] == after[name]).all()}
    assert {name.partition(".")[0] for name in changed} == {"decoder", "post_quant_conv"}
    assert len(changed) == sum(name.startswith(("decoder.", "post_quant_conv.")) for name in before)

    checkpoint = run / "checkpoints" / "step-000002"
    published = tmp_path / "vq.pt"
    converted = convert(checkpoint, published, recipe=recipe, what="tokenizer")
    assert converted.left_out == ()
    tokens = torch.zeros(1, 64, dtype=torch.long)
    folder, file, base = (
        load_tokenizer(with_changes(recipe, {"tokenizer.checkpoint": str(path)}), torch.device("cpu")).decode(
            tokens
        )
        for path in (checkpoint, published, recipe.tokenizer.checkpoint)
    )
    assert folder.equal(file)
    assert not folder.equal(base)


def test_a_run_of_one_method_is_not_gone_on_with_by_another(small_run):
    served(small_run("run", SHORT | {"learner.method": "ste", "learner.num_steps": 1}))
    with pytest.raises(RecipeError, match=r"another learner\.method"):
        served(small_run("run", SHORT))
