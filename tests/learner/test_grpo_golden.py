"""The grouped update against the textbook one, in which every context is repeated G times.

The golden values were computed by the published model code: tests/data/llamagen, one row a sample. Here one
forward serves all samples of a group.

Letters: B groups, G samples a group, N = B · G rows, T image tokens, V codebook entries.
"""

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.testing import assert_close

from common.clock import StageClock
from common.config.algorithm import LearnerSection
from common.config.recipe import Recipe
from common.models.llamagen.spec import LlamaGenPolicySpec, TransformerSize
from common.models.llamagen.transformer import LlamaGenTransformer
from common.models.weights_files import load_weights
from common.paths import CHECKOUT
from common.schema import GroupBatch
from common.token_distribution import TokenDistribution
from learner.advantage import group_advantages
from learner.loss import ce_prior, policy_loss
from learner.optimizer import build_optimizer
from learner.step_sums import StepSums
from learner.token_logprobs import token_logprobs
from learner.train_step import Trainer

DATA = CHECKOUT / "tests" / "data" / "llamagen"
GOLDEN = json.loads((DATA / "config.json").read_text())["grpo"]
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
SIZE = TransformerSize(num_layers=2, num_heads=4, dim=64, ffn_multiple=32)
POLICY = LlamaGenPolicySpec(size=SIZE, num_classes=10, checkpoint="")


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return load_file(DATA / "llamagen_c2i_tiny_expected.safetensors")


@pytest.fixture
def policy() -> LlamaGenTransformer:
    return load_policy()


def load_policy() -> LlamaGenTransformer:
    model = LlamaGenTransformer(POLICY, codebook_size=64, grid_size=4)
    load_weights(model, DATA / "llamagen_c2i_tiny.pt", what="policy")
    return model.eval()


def learner_section(micro_batch_size: int = 2) -> LearnerSection:
    return LearnerSection(
        num_steps=1,
        images_per_step=3,
        micro_batch_size=micro_batch_size,
        lr=GOLDEN["lr"],
        betas=GOLDEN["betas"],
        weight_decay=GOLDEN["weight_decay"],
        max_grad_norm=GOLDEN["max_grad_norm"],
        clip_range=GOLDEN["clip_range"],
        advantage_clip=GOLDEN["adv_clip_max"],
        ce_weight=GOLDEN["ce_weight"],
    )


def golden_recipe(micro_batch_size: int = 2) -> Recipe:
    return Recipe.model_validate(
        {
            "image_size": 64,
            "source": {"kind": "mnist"},
            "tokenizer": {"size": "vq16", "checkpoint": ""},
            "policy": POLICY.model_dump(),
            "group": {"size": GOLDEN["G"], "temperature": GOLDEN["temperature"]},
            "reward": {"mse": 1, "lpips": 0},
            "actors": {"images_per_ticket": 1},
            "learner": learner_section(micro_batch_size).model_dump(),
        }
    )


def golden_groups(expected: dict[str, Tensor]) -> GroupBatch:
    rewards_BG = expected["grpo_rewards"].numpy()
    return GroupBatch(
        sample_index_B=torch.arange(3).numpy(),
        image_id_B=("0", "1", "2"),
        policy_version=0,
        codebook_size=64,
        context_tokens_BT=expected["noisy_context"].int().numpy(),
        target_tokens_BT=expected["gt_tokens"].int().numpy(),
        sampled_tokens_BGT=expected["grpo_sampled_tokens"].int().numpy(),
        behaviour_logprobs_BGT=expected["grpo_old_logprobs"].numpy(),
        condition={"label": expected["labels"].numpy()},
        reward_terms={"mse": -rewards_BG, "lpips": 100 + rewards_BG},  # the second of weight 0
    )


def train_once(
    policy: LlamaGenTransformer, groups: GroupBatch, micro_batch_size: int = 2
) -> tuple[StepSums, float]:
    trainer = Trainer(policy, golden_recipe(micro_batch_size), torch.device("cpu"))
    return trainer.train(groups, StageClock())


def grouped_terms(policy: LlamaGenTransformer, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The pure functions on all groups, one row a group, under the names of the fixture."""
    hidden_BTD = policy({"label": expected["labels"]}, expected["noisy_context"], head=False)
    logprobs = token_logprobs(
        policy.logits,
        hidden_BTD,
        expected["grpo_sampled_tokens"],
        expected["gt_tokens"],
        TokenDistribution(GOLDEN["temperature"]),
        rows_at_once=20,
    )
    advantages_BG = group_advantages(expected["grpo_rewards"], GOLDEN["adv_clip_max"])
    policy_B, ratio_BGT = policy_loss(
        logprobs.samples_BGT, expected["grpo_old_logprobs"], advantages_BG, GOLDEN["clip_range"]
    )
    prior_B = ce_prior(logprobs.targets_BT)
    return {
        "grpo_advantages": advantages_BG,
        "grpo_ratio": ratio_BGT,
        "grpo_policy_loss": policy_B.mean(),
        "grpo_ce_loss": prior_B.mean(),
        "grpo_loss": (policy_B + GOLDEN["ce_weight"] * prior_B).mean(),
    }


def repeated_loss(policy: nn.Module, expected: dict[str, Tensor]) -> Tensor:
    """The loss in its textbook form: N rows, each with a context, a target and a sample of its own."""
    G = GOLDEN["G"]
    label_N, context_NT, target_NT = (
        expected[name].repeat_interleave(G, dim=0) for name in ("labels", "noisy_context", "gt_tokens")
    )
    logprobs_NTV = policy({"label": label_N}, context_NT).log_softmax(-1)
    sampled_NT1 = expected["grpo_sampled_tokens"].flatten(0, 1)[:, :, None]
    sampled_logprobs_NT = logprobs_NTV.gather(-1, sampled_NT1)[:, :, 0]
    ratio_NT = (sampled_logprobs_NT - expected["grpo_old_logprobs"].flatten(0, 1)).exp()
    advantages_N1 = expected["grpo_advantages"].flatten()[:, None]
    unclipped_NT = advantages_N1 * ratio_NT
    clipped_NT = advantages_N1 * ratio_NT.clip(0.8, 1.2)
    prior_NT = -logprobs_NTV.gather(-1, target_NT[:, :, None])[:, :, 0]
    return -torch.minimum(unclipped_NT, clipped_NT).mean() + 0.1 * prior_NT.mean()


def gradients(policy: nn.Module) -> dict[str, Tensor]:
    return {name: given(parameter.grad).clone() for name, parameter in policy.named_parameters()}


def given(gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    return gradient


def assert_equals_fixture(named: dict[str, Tensor], prefix: str, expected: dict[str, Tensor]) -> None:
    """`named` has every tensor that the fixture keeps under `prefix` (five of the parameters), and equal."""
    golden = {name.removeprefix(prefix): value for name, value in expected.items() if name.startswith(prefix)}
    assert len(golden) == 5
    for name, value in golden.items():
        assert_close(named[name], value, **TOLERANCE, msg=lambda text, name=name: f"{prefix}{name}: {text}")


def test_the_fixture_clips_some_ratios_and_its_gradient(expected: dict[str, Tensor]) -> None:
    clipped_BGT = (expected["grpo_ratio"] - 1).abs() > 0.2
    assert 0.05 < clipped_BGT.float().mean() < 0.95
    assert expected["grpo_grad_norm"] > GOLDEN["max_grad_norm"]


@pytest.mark.parametrize(
    "name", ["grpo_advantages", "grpo_ratio", "grpo_policy_loss", "grpo_ce_loss", "grpo_loss"]
)
def test_grouped_terms_equal_the_textbook_ones(
    name: str, policy: LlamaGenTransformer, expected: dict[str, Tensor]
) -> None:
    with torch.no_grad():
        assert_close(grouped_terms(policy, expected)[name], expected[name].squeeze(), **TOLERANCE)


def test_the_gradient_and_the_step_of_the_grouped_loss_equal_the_textbook_ones(
    policy: LlamaGenTransformer, expected: dict[str, Tensor]
) -> None:
    optimizer = build_optimizer(policy, learner_section())
    grouped_terms(policy, expected)["grpo_loss"].backward()
    norm = nn.utils.clip_grad_norm_(policy.parameters(), GOLDEN["max_grad_norm"])
    assert_close(norm, expected["grpo_grad_norm"].squeeze(), **TOLERANCE)
    assert_equals_fixture(gradients(policy), "grpo_clipped_grad.", expected)
    optimizer.step()
    assert_equals_fixture(policy.state_dict(), "grpo_after_step.", expected)


def test_the_trainer_reports_the_textbook_terms(policy: LlamaGenTransformer, expected: dict[str, Tensor]) -> None:
    sums, norm = train_once(policy, golden_groups(expected))
    report = sums.report(step=1, grad_norm=norm, stage_seconds={})
    reported: dict[str, Any] = {
        "grpo_loss": report.loss,
        "grpo_policy_loss": report.policy_loss,
        "grpo_ce_loss": report.ce_prior,
        "grpo_grad_norm": report.grad_norm,
    }
    for name, value in reported.items():
        assert value == pytest.approx(expected[name].item(), rel=1e-4, abs=1e-5), name
    assert report.num_groups == 3
    assert report.reward_mean == pytest.approx(expected["grpo_rewards"].mean().item(), rel=1e-5)
    clipped_BGT = (expected["grpo_ratio"] - 1).abs() > 0.2
    assert report.clip_fraction == pytest.approx(clipped_BGT.float().mean().item(), rel=1e-5)


@pytest.mark.parametrize("micro_batch_size", [1, 2, 3])
def test_the_trainer_takes_the_textbook_step(
    micro_batch_size: int, policy: LlamaGenTransformer, expected: dict[str, Tensor]
) -> None:
    train_once(policy, golden_groups(expected), micro_batch_size)
    assert_equals_fixture(gradients(policy), "grpo_clipped_grad.", expected)
    assert_equals_fixture(policy.state_dict(), "grpo_after_step.", expected)


def test_the_micro_batch_size_changes_neither_gradient_nor_parameters(expected: dict[str, Tensor]) -> None:
    one, three = load_policy(), load_policy()
    train_once(one, golden_groups(expected), micro_batch_size=1)
    train_once(three, golden_groups(expected), micro_batch_size=3)
    for (name, parameter), other in zip(one.named_parameters(), three.parameters(), strict=True):
        gradient = given(parameter.grad)
        assert_close(gradient, given(other.grad), rtol=1e-5, atol=1e-7)
        # AdamW's first step divides a gradient by its own size: rounding decides where one of 1e-8 goes.
        is_settled = (gradient == 0) | (gradient.abs() > 1e-6)
        assert is_settled.float().mean() > 0.99, name
        assert_close(parameter[is_settled], other[is_settled], rtol=0, atol=1e-6)


def test_one_forward_a_group_gives_the_gradient_of_one_forward_a_sample(
    policy: LlamaGenTransformer, expected: dict[str, Tensor]
) -> None:
    repeated = repeated_loss(policy, expected)
    repeated.backward()
    repeated_gradients = gradients(policy)
    policy.zero_grad()
    grouped = grouped_terms(policy, expected)["grpo_loss"]
    grouped.backward()
    assert_close(grouped, repeated, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients(policy).items():
        assert_close(gradient, repeated_gradients[name], rtol=1e-4, atol=1e-6)
