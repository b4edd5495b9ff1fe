"""One optimizer step: what it refuses, reports, and how it splits over ranks. Its numbers: test_grpo_golden.

Letters: B groups, G samples a group, T image tokens, V codebook entries.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from common.clock import StageClock
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.finite import take_rows
from common.models.families import build_policy
from common.schema import GroupBatch
from learner.step_sums import MEASURED, StepSums
from learner.train_step import Trainer

B, G, T, V = 4, 4, 64, 20
CPU = torch.device("cpu")


def policy_of(recipe: Recipe) -> nn.Module:
    torch.manual_seed(0)
    policy = build_policy(recipe.policy, codebook_size=V, grid_size=8)
    nn.init.normal_(policy.output.weight, std=0.1)
    return policy


def groups() -> GroupBatch:
    draws = np.random.default_rng(0)

    def tokens(*shape: int) -> np.ndarray:
        return draws.integers(V, size=shape, dtype=np.int32)

    return GroupBatch(
        sample_index_B=np.arange(B),
        image_id_B=tuple("abcd"),
        policy_version=0,
        codebook_size=V,
        context_tokens_BT=tokens(B, T - 1),
        target_tokens_BT=tokens(B, T),
        sampled_tokens_BGT=tokens(B, G, T),
        behaviour_logprobs_BGT=np.full((B, G, T), -np.log(V), dtype=np.float32),
        condition={"label": np.arange(B)},
        reward_terms={name: draws.random((B, G), dtype=np.float32) for name in ("mse", "lpips")},
    )


def rows(batch: GroupBatch, chosen: slice) -> GroupBatch:
    return take_rows(batch, range(len(batch))[chosen])


def numbers(sums: StepSums) -> dict[str, float]:
    """All of them by name, flat."""
    counts = {"num_groups": sums.num_groups, "num_quarantined": sums.num_quarantined, "num_flat": sums.num_flat}
    assert set(sums.sums) == set(MEASURED)
    return {**counts, **sums.sums, **sums.reward_terms}


def ce_of(sums: StepSums) -> float:
    return sums.sums["ce_prior"]


def test_a_step_counts_moves_the_weights_and_times_its_stages(tiny_recipe: Recipe) -> None:
    trainer = Trainer(policy_of(tiny_recipe), tiny_recipe, CPU)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    clock = StageClock()
    trainer.train(groups(), clock)
    assert trainer.step == 1
    assert not trainer.model.training
    assert set(clock.seconds) == {"forward_backward", "optimizer"}
    assert all((before[name] != value).any() for name, value in trainer.model.state_dict().items())


def test_two_ranks_that_average_their_gradients_take_the_step_of_one(tiny_recipe: Recipe) -> None:
    whole = Trainer(policy_of(tiny_recipe), tiny_recipe, CPU)
    whole_sums, _ = whole.train(groups(), StageClock())
    halves = [Trainer(policy_of(tiny_recipe), tiny_recipe, CPU) for _ in range(2)]
    unclipped = []
    half_sums = StepSums()
    for trainer, chosen in zip(halves, (slice(0, 1), slice(1, 4)), strict=True):
        own = rows(groups(), chosen)
        sums, norm = trainer.train(own, StageClock(), num_groups=B, num_ranks=2)
        half_sums += sums
        clipping = max(norm, 1.0)  # undo the clipping: a rank of DDP averages before it
        unclipped.append([clipping * parameter.grad for parameter in trainer.model.parameters()])
    averaged = [(one + other) / 2 for one, other in zip(*unclipped, strict=True)]
    norm = torch.stack([gradient.norm() for gradient in averaged]).norm().clamp(min=1)
    for parameter, gradient in zip(whole.model.parameters(), averaged, strict=True):
        assert_close(parameter.grad, gradient / norm, rtol=1e-4, atol=1e-6)
    assert half_sums.report(1, 1.0, {}).loss == pytest.approx(whole_sums.report(1, 1.0, {}).loss, rel=1e-5)


def test_a_report_holds_means_over_groups() -> None:
    one = StepSums(1, num_flat=1, sums={"loss": 1.0, "reward_std": 0.5}, reward_terms={"mse": 0.25})
    sums = one + StepSums(3, 2, 1, sums={"loss": 5.0, "reward_std": 0.1}, reward_terms={"mse": 0.75})
    report = sums.report(step=7, grad_norm=2.5, stage_seconds={"optimizer": 0.25})
    assert (report.step, report.num_groups, report.grad_norm) == (7, 4, 2.5)
    assert report.loss == 1.5
    assert report.reward_std == pytest.approx(0.15)
    assert report.reward_terms == {"mse": 0.25}
    assert (report.num_quarantined, report.num_flat) == (2, 2)
    assert report.stage_seconds == {"optimizer": 0.25}


def test_a_gradient_that_is_no_number_changes_neither_weights_nor_optimizer_and_counts(
    tiny_recipe: Recipe,
) -> None:
    trainer, undisturbed = (Trainer(policy_of(tiny_recipe), tiny_recipe, CPU) for _ in range(2))
    exploding = groups()
    exploding.behaviour_logprobs_BGT[2] = -1e30  # finite, but its ratio is not
    for batch in (groups(), exploding, groups()):
        sums, norm = trainer.train(batch, StageClock())
        assert sums.report(trainer.step, norm, {}).is_bad == (batch is exploding)
    for _ in range(2):
        undisturbed.train(groups(), StageClock())
    assert (trainer.step, undisturbed.step) == (3, 2)
    for parameter, expected in zip(trainer.model.parameters(), undisturbed.model.parameters(), strict=True):
        assert parameter.equal(expected)


def with_maps(batch: GroupBatch) -> GroupBatch:
    maps = np.random.default_rng(1).random((2, B, G, T), dtype=np.float32)
    return replace(batch, reward_maps={"mse": maps[0], "lpips": maps[1]})


def test_token_credit_learns_from_the_maps_alike_in_both_profiles(tiny_recipe: Recipe, monkeypatch) -> None:
    monkeypatch.setattr("learner.train_step.PUBLISHED_DROPOUT", 0.0)
    by_token = with_changes(tiny_recipe, {"advantage.credit": "token"})
    sums, norms = [], []
    for recipe in (by_token, with_changes(by_token, {"profile": "published"}), tiny_recipe):
        one, norm = Trainer(policy_of(recipe), recipe, CPU).train(with_maps(groups()), StageClock())
        sums.append(numbers(one))
        norms.append(norm)
    assert sums[1] == pytest.approx(sums[0], rel=1e-4)
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)
    assert norms[2] != pytest.approx(norms[0], rel=1e-2)


def test_a_map_with_a_number_that_is_not_finite_takes_its_group_out_of_the_step(tiny_recipe: Recipe) -> None:
    recipe = with_changes(tiny_recipe, {"advantage.credit": "token"})
    batch = with_maps(groups())
    batch.reward_maps["lpips"][2, 1, 7] = np.nan
    sums, norm = Trainer(policy_of(recipe), recipe, CPU).train(batch, StageClock())
    assert (sums.num_groups, sums.num_quarantined) == (3, 1)
    assert np.isfinite(norm)


@pytest.mark.parametrize("profile", ["corrected", "published"])
@pytest.mark.parametrize(
    ("column", "value"),
    [("mse", np.nan), ("lpips", np.inf), ("behaviour log-probs", -np.inf)],
)
def test_a_group_with_a_number_that_is_not_finite_has_no_part_in_the_step(
    tiny_recipe: Recipe, monkeypatch, column: str, value: float, profile: str
) -> None:
    monkeypatch.setattr("learner.train_step.PUBLISHED_DROPOUT", 0.0)
    recipe = with_changes(tiny_recipe, {"profile": profile, "learner.max_grad_norm": 1e9})
    poisoned, without = (Trainer(policy_of(recipe), recipe, CPU) for _ in range(2))
    batch = groups()
    columns = {**batch.reward_terms, "behaviour log-probs": batch.behaviour_logprobs_BGT}
    columns[column][3, 1] = value
    sums, norm = poisoned.train(batch, StageClock())
    expected_sums, expected_norm = without.train(rows(groups(), slice(0, 3)), StageClock(), num_groups=B)
    assert (sums.num_groups, sums.num_quarantined) == (3, 1)
    assert norm == pytest.approx(expected_norm, rel=1e-4)
    assert numbers(sums) == pytest.approx(numbers(expected_sums) | {"num_quarantined": 1}, rel=1e-4)
    for parameter, expected in zip(poisoned.model.parameters(), without.model.parameters(), strict=True):
        assert_close(parameter.grad, expected.grad, rtol=1e-4, atol=1e-6)


def test_a_step_of_nothing_but_such_groups_reports_zeros(tiny_recipe: Recipe) -> None:
    batch = groups()
    batch.reward_terms["mse"][:] = np.nan
    sums, norm = Trainer(policy_of(tiny_recipe), tiny_recipe, CPU).train(batch, StageClock())
    report = sums.report(1, norm, {})
    assert (report.num_groups, report.num_quarantined, report.loss, report.grad_norm) == (0, 4, 0.0, 0.0)


def test_a_correction_weights_groups_of_another_policy_and_leaves_fresh_ones_alone(tiny_recipe: Recipe) -> None:
    def gradient_norm(correction: str, batch: GroupBatch) -> float:
        recipe = with_changes(tiny_recipe, {"learner.correction": correction})
        return Trainer(policy_of(recipe), recipe, CPU).train(batch, StageClock())[1]

    stale = groups()  # sampled by a policy that gave every token the same probability
    none, truncated, decoupled = (gradient_norm(name, stale) for name in ("none", "truncated", "decoupled"))
    assert truncated == pytest.approx(decoupled, rel=1e-5)  # with one update a step
    assert truncated != pytest.approx(none, rel=1e-2)


def train_as_published(recipe: Recipe, condition_drop: float, seed: int = 0, rank: int = 0) -> StepSums:
    changes = {"profile": "published", "context.condition_drop": condition_drop, "seed": seed}
    trainer = Trainer(policy_of(recipe), with_changes(recipe, changes), CPU)
    return trainer.train(groups(), StageClock(), rank=rank)[0]


def test_the_published_profile_learns_from_a_row_a_sample_under_dropout(tiny_recipe: Recipe) -> None:
    corrected, _ = Trainer(policy_of(tiny_recipe), tiny_recipe, CPU).train(groups(), StageClock())
    published = train_as_published(tiny_recipe, 0.0)
    assert published.num_groups == corrected.num_groups
    assert ce_of(published) == pytest.approx(ce_of(corrected), rel=0.1)  # the same up to dropout
    assert ce_of(published) != ce_of(corrected)
    assert ce_of(train_as_published(tiny_recipe, 0.0, rank=1)) != ce_of(published)


def test_the_published_profile_draws_the_same_dropout_for_the_same_step(tiny_recipe: Recipe) -> None:
    assert train_as_published(tiny_recipe, 0.1) == train_as_published(tiny_recipe, 0.1)


def test_without_dropout_and_drops_the_published_profile_is_the_corrected_one(
    tiny_recipe: Recipe, monkeypatch
) -> None:
    monkeypatch.setattr("learner.train_step.PUBLISHED_DROPOUT", 0.0)
    corrected, corrected_norm = Trainer(policy_of(tiny_recipe), tiny_recipe, CPU).train(groups(), StageClock())
    recipe = with_changes(tiny_recipe, {"profile": "published"})
    published, published_norm = Trainer(policy_of(tiny_recipe), recipe, CPU).train(groups(), StageClock())
    assert numbers(published) == pytest.approx(numbers(corrected), rel=1e-5)
    assert published_norm == pytest.approx(corrected_norm, rel=1e-5)


def test_the_published_profile_drops_conditions_in_the_learner(tiny_recipe: Recipe, monkeypatch) -> None:
    monkeypatch.setattr("learner.train_step.PUBLISHED_DROPOUT", 0.0)
    assert ce_of(train_as_published(tiny_recipe, 0.5)) != ce_of(train_as_published(tiny_recipe, 0.0))


def test_the_reference_of_the_kl_prior_is_the_first_policy_and_is_there_for_it_alone(tiny_recipe: Recipe) -> None:
    recipe = with_changes(tiny_recipe, {"learner.prior": "kl", "learner.lr": 0.1})
    trainer = Trainer(policy_of(recipe), recipe, CPU)
    reference = trainer._reference
    assert reference is not None
    kls = [trainer.train(groups(), StageClock())[0].sums["kl_prior"] for _ in range(2)]
    assert kls[0] == 0
    assert kls[1] > 0.01
    for one, first in zip(reference.parameters(), policy_of(recipe).parameters(), strict=True):
        assert one.equal(first)
        assert not one.requires_grad
    assert Trainer(policy_of(tiny_recipe), tiny_recipe, CPU)._reference is None


def test_under_the_kl_prior_the_published_profile_learns_as_the_corrected_one(
    tiny_recipe: Recipe, monkeypatch
) -> None:
    monkeypatch.setattr("learner.train_step.PUBLISHED_DROPOUT", 0.0)
    norms = []
    for profile in ("corrected", "published"):
        recipe = with_changes(tiny_recipe, {"learner.prior": "kl", "learner.lr": 0.1, "profile": profile})
        trainer = Trainer(policy_of(recipe), recipe, CPU)
        trainer.train(groups(), StageClock())
        norms.append(trainer.train(groups(), StageClock())[1])
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


@pytest.mark.parametrize("profile", ["corrected", "published"])
def test_groups_whose_samples_have_equal_rewards_are_counted_over_all_micro_batches(
    tiny_recipe: Recipe, profile: str
) -> None:
    recipe = with_changes(tiny_recipe, {"profile": profile, "reward.lpips": 0})
    batch = groups()
    for row in (0, 3):
        batch.reward_terms["mse"][row] = 0.3
    batch.reward_terms["lpips"][1] = 0.3  # of weight 0
    sums, _ = Trainer(policy_of(recipe), recipe, CPU).train(batch, StageClock())
    assert (sums.num_groups, sums.num_flat) == (4, 2)
    assert sums.report(1, 1.0, {}).num_flat == 2


def test_under_token_credit_a_group_is_flat_where_its_maps_are(tiny_recipe: Recipe) -> None:
    recipe = with_changes(tiny_recipe, {"advantage.credit": "token"})
    batch = with_maps(groups())
    for columns in (batch.reward_terms, batch.reward_maps):
        for column in columns.values():
            column[2] = 0.3
    batch.reward_terms["mse"][0] = batch.reward_terms["lpips"][0] = 0.3
    sums, _ = Trainer(policy_of(recipe), recipe, CPU).train(batch, StageClock())
    assert sums.num_flat == 1


def test_a_quarantined_group_is_not_flat_and_without_a_reward_none_is(tiny_recipe: Recipe) -> None:
    batch = groups()
    for column in batch.reward_terms.values():
        column[:] = 0.3
    batch.reward_terms["mse"][1, 2] = np.nan
    sums, _ = Trainer(policy_of(tiny_recipe), tiny_recipe, CPU).train(batch, StageClock())
    assert (sums.num_groups, sums.num_quarantined, sums.num_flat) == (3, 1, 3)
    prior_alone = with_changes(tiny_recipe, {"reward.mse": 0, "reward.lpips": 0, "learner.ce_weight": 1})
    sums, _ = Trainer(policy_of(prior_alone), prior_alone, CPU).train(
        replace(batch, reward_terms={}), StageClock()
    )
    assert (sums.num_groups, sums.num_flat, sums.sums["policy_loss"]) == (4, 0, 0.0)
