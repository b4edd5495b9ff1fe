"""The work of learner.method ste and decoder, whose ranks score pictures themselves."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.models.loading import load_trained
from deploy.planning.counting import Work, count_work
from deploy.planning.gpus import GPUS, Utilisation
from deploy.planning.memory import actor_memory, learner_memory, state_bytes
from deploy.planning.rates import rates
from deploy.planning.timing import estimate
from learner.beside_decoder import PatchDiscriminator
from learner.train_step import Trainer

G = 4


@pytest.fixture
def grpo(tiny_recipe: Recipe) -> Work:
    return count_work(tiny_recipe)


def counted(recipe: Recipe, method: str, **changes: Any) -> Work:
    return count_work(with_changes(recipe, {"learner.method": method} | changes))


def test_ste_decodes_one_grid_on_the_rank_and_its_actors_encode_alone(tiny_recipe: Recipe, grpo: Work) -> None:
    work = counted(tiny_recipe, "ste")
    assert work.actor.flops == work.actor.encode == grpo.actor.encode
    assert (work.learner.forward, work.learner.backward) == (grpo.learner.forward, grpo.learner.backward)
    decode, metric = grpo.actor.decode // G, grpo.actor.perceptual // (G + 1)
    # there, and back to the codes: no gradient is taken in the decoder's weights
    assert work.learner.decode == pytest.approx(2 * decode, rel=0.02)
    assert work.learner.perceptual == pytest.approx(3 * metric, rel=0.1)
    assert work.learner.recomputed > grpo.actor.head  # logits, and the mean code
    assert work.learner.plain_bytes.kept > grpo.learner.plain_bytes.kept


def test_the_decoder_takes_gradients_of_its_weights_and_no_policy(tiny_recipe: Recipe, grpo: Work) -> None:
    work = counted(tiny_recipe, "decoder")
    assert (work.actor.policy, work.actor.head) == (grpo.actor.policy, grpo.actor.head)
    assert (work.actor.decode, work.actor.perceptual, work.learner.forward) == (0, 0, 0)
    assert work.learner.decode == pytest.approx(3 * grpo.actor.decode, rel=0.05)
    assert work.num_trained < work.rank_bytes / 4
    with_clean = counted(tiny_recipe, "decoder", **{"decoder.clean_weight": 1.0})
    assert with_clean.learner.decode == work.learner.decode * (G + 1) // G
    anchored = counted(tiny_recipe, "decoder", **{"decoder.anchor_weight": 1.0})
    assert anchored.learner.decode == work.learner.decode + grpo.actor.decode
    assert anchored.scoring_bytes == work.scoring_bytes + work.rank_bytes
    both = counted(tiny_recipe, "decoder", **{"decoder.anchor_weight": 1.0, "decoder.ema_weight": 1.0})
    assert both.learner.decode == anchored.learner.decode + grpo.actor.decode
    assert both.scoring_bytes == anchored.scoring_bytes + work.rank_bytes


def test_ranks_hold_what_they_score_with_and_of_the_decoder_no_policy(tiny_recipe: Recipe) -> None:
    gpu = GPUS["a100"]
    for method, of_policy in (("ste", True), ("decoder", False)):
        recipe = with_changes(tiny_recipe, {"learner.method": method})
        work = count_work(recipe)
        rank, actor = learner_memory(recipe, work, gpu), actor_memory(recipe, work, gpu)
        assert rank.policy == (work.policy_bytes if of_policy else work.rank_bytes)
        assert rank.frozen == work.scoring_bytes > 0
        assert actor.policy == work.policy_bytes
        assert rank.gradients == 4 * work.num_trained
    changes = {"learner.method": "decoder", "placement": "colocated", "actors.count": 0}
    recipe = with_changes(tiny_recipe, changes)
    both = learner_memory(recipe, count_work(recipe), gpu)
    assert both.frozen == rank.frozen + work.frozen_bytes + work.policy_bytes - work.rank_bytes


def test_a_rank_s_pictures_take_time_at_the_convolutions_rates(tiny_recipe: Recipe) -> None:
    recipe, gpu = with_changes(tiny_recipe, {"learner.method": "decoder"}), GPUS["a100"]
    work, rate = count_work(recipe), rates(recipe, gpu, Utilisation())
    seconds = work.learner.decode / rate.decode + work.learner.perceptual / rate.perceptual
    assert estimate(recipe, work, None, gpu, rate).learner_rank_seconds_per_image == pytest.approx(seconds)
    judged = count_work(with_changes(recipe, {"decoder.gan_weight": 0.1}))
    seconds += judged.learner.discriminator / rate.perceptual
    assert estimate(recipe, judged, None, gpu, rate).learner_rank_seconds_per_image == pytest.approx(seconds)


def test_a_discriminator_is_counted_as_pytorch_counts_a_real_one(tiny_recipe: Recipe) -> None:
    recipe = with_changes(tiny_recipe, {"learner.method": "decoder", "decoder.gan_weight": 0.1})
    discriminator = PatchDiscriminator(recipe, torch.device("cpu"))
    drawn, image = torch.zeros(1, G, 3, 32, 32, requires_grad=True), torch.zeros(1, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        torch.cat(discriminator.losses(drawn, image)).sum().backward()
    plain, work = counted(tiny_recipe, "decoder"), count_work(recipe)
    assert work.learner.discriminator == counter.get_total_flops()
    assert work.learner.decode == plain.learner.decode
    assert work.learner.plain_bytes.kept > plain.learner.plain_bytes.kept
    own = sum(parameter.nbytes for parameter in discriminator.parameters())
    without, beside = (learner_memory(recipe, each, GPUS["a100"]) for each in (plain, work))
    assert (beside.policy - without.policy, beside.gradients - without.gradients) == (own, own)
    assert beside.adamw - without.adamw == 2 * own


def test_a_checkpoint_of_the_decoder_has_its_average_and_its_discriminator(small_run: Any) -> None:
    beside = {"decoder": {"ema_weight": 1, "gan_weight": 0.1}}
    recipe = small_run("beside", {"learner.method": "decoder", "reward.lpips": 0} | beside)
    device = torch.device("cpu")
    trainer = Trainer(load_trained(recipe, device), recipe, device)
    trained = sum(parameter.nbytes for parameter in trainer.model.parameters() if parameter.requires_grad)
    real = sum(array.nbytes for array in trainer.optimizer_arrays().values())  # no step was done: without moments
    discriminator = PatchDiscriminator(recipe, device)
    assert real == trained + sum(tensor.nbytes for tensor in discriminator.state_dict().values())
    work = count_work(recipe)
    moments = 2 * (trained + sum(parameter.nbytes for parameter in discriminator.parameters()))
    counter = 8  # of its updates
    assert state_bytes(work) == work.trained_bytes + real - counter + moments
