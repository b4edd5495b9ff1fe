"""The learner's update of a small Janus against the textbook one of tests/data/janus, every tensor of it."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from common.clock import StageClock
from common.config.recipe import Recipe
from common.models.janus.published_files import published_name
from common.models.janus.transformer import JanusTransformer
from common.schema import GroupBatch
from common.token_distribution import TokenDistribution
from learner.advantage import group_advantages
from learner.loss import policy_loss
from learner.token_logprobs import token_logprobs
from learner.train_step import Trainer
from tests.common.models.janus.golden import DATA, RECIPE, condition, expected, policy

GOLDEN = json.loads((DATA / "config.json").read_text())["grpo"]
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def golden_recipe(micro_batch_size: int) -> Recipe:
    learner = {
        "num_steps": 1,
        "images_per_step": 3,
        "micro_batch_size": micro_batch_size,
        "lr": GOLDEN["lr"],
        "betas": GOLDEN["betas"],
        "weight_decay": GOLDEN["weight_decay"],
        "max_grad_norm": GOLDEN["max_grad_norm"],
        "clip_range": GOLDEN["clip_range"],
        "advantage_clip": GOLDEN["adv_clip_max"],
        "ce_weight": GOLDEN["ce_weight"],
        "logit_rows": 20,
    }
    changes = {"group": {"size": GOLDEN["G"]}, "actors": {"images_per_ticket": 1}, "learner": learner}
    return Recipe.model_validate(RECIPE | changes)


def golden_groups() -> GroupBatch:
    golden = expected()
    return GroupBatch(
        sample_index_B=torch.arange(3).numpy(),
        image_id_B=("0", "1", "2"),
        policy_version=0,
        codebook_size=64,
        context_tokens_BT=golden["noisy_context"].int().numpy(),
        target_tokens_BT=golden["gt_tokens"].int().numpy(),
        sampled_tokens_BGT=golden["grpo_sampled_tokens"].int().numpy(),
        behaviour_logprobs_BGT=golden["grpo_old_logprobs"].numpy(),
        condition={name: column.int().numpy() for name, column in condition().items()},
        reward_terms={"mse": -golden["grpo_rewards"].numpy()},
    )


def as_published(named: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + published_name(name, "transformers"): tensor for name, tensor in named.items()}


@pytest.mark.parametrize("micro_batch_size", [1, 3])
def test_the_trainer_takes_the_textbook_step(micro_batch_size: int) -> None:
    model, golden = policy(), expected()
    update = load_file(DATA / "expected_update.safetensors")
    sums, norm = Trainer(model, golden_recipe(micro_batch_size), torch.device("cpu")).train(
        golden_groups(), StageClock()
    )
    report = sums.report(step=1, grad_norm=norm, stage_seconds={})
    reported = {
        "grpo_loss": report.loss,
        "grpo_policy_loss": report.policy_loss,
        "grpo_ce_loss": report.ce_prior,
        "grpo_grad_norm": report.grad_norm,
    }
    for name, value in reported.items():
        assert value == pytest.approx(golden[name].item(), rel=1e-4, abs=1e-5), name
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    ours = as_published(gradients, "grpo_clipped_grad.") | as_published(model.state_dict(), "grpo_after_step.")
    assert ours.keys() == update.keys()
    for name, value in update.items():
        assert_close(ours[name], value, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")


@torch.no_grad()
def test_logprobs_ratios_and_advantages_equal_the_textbook_ones() -> None:
    model, golden = policy(), expected()
    logprobs = token_logprobs(
        model.logits,
        model(condition(), golden["noisy_context"], head=False),
        golden["grpo_sampled_tokens"],
        golden["gt_tokens"],
        TokenDistribution(GOLDEN["temperature"]),
        rows_at_once=20,
    )
    assert_close(logprobs.samples_BGT, golden["grpo_new_logprobs"], **TOLERANCE)
    advantages_BG = group_advantages(golden["grpo_rewards"], GOLDEN["adv_clip_max"])
    assert_close(advantages_BG, golden["grpo_advantages"], **TOLERANCE)
    _, ratio_BGT = policy_loss(
        logprobs.samples_BGT, golden["grpo_old_logprobs"], advantages_BG, GOLDEN["clip_range"]
    )
    assert_close(ratio_BGT, golden["grpo_ratio"], **TOLERANCE)


def test_the_tests_use_every_tensor_of_the_fixture() -> None:
    compared = {
        "logits_clean", "logits_noisy", "logits_null", "greedy_tokens_cfg1.0", "greedy_tokens_cfg5.0",
        "vq_features", "vq_tokens", "vq_reconstruction", "vq_decoded_gt", "grpo_new_logprobs", "grpo_advantages",
        "grpo_ratio",
        "grpo_policy_loss", "grpo_ce_loss", "grpo_loss", "grpo_grad_norm", "prompt_ids", "null_prompt_ids",
        "prompt_mask", "prompt_lengths",
    }  # fmt: skip
    inputs = {"gt_tokens", "noisy_context", "images", "grpo_sampled_tokens", "grpo_old_logprobs", "grpo_rewards"}
    assert expected().keys() == compared | inputs
    assert isinstance(policy(), JanusTransformer)
