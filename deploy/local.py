"""The whole algorithm in one process: read this page to know what VA-π does.

No Ray, no queue, no clock. The service computes exactly this, with reward actors and learner ranks in their own
processes; a test checks for the same losses and the same final weights.

Letters: B source images (groups), G samples per group, T image tokens, D width of hidden states.
"""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from actors.code_credit import code_credit
from actors.context_noise import ContextNoise
from actors.group_sampling import sample_groups
from actors.image_batch import ImageBatch, batch_of, start_reading
from actors.rewards.decoded_reward import DecodedReward
from actors.rewards.term import Sources
from actors.rollouts.free_running import own_logprobs, sample_own
from common.clock import StageClock
from common.code_credit import CodeCredit, codebook_codes
from common.condition_drop import drop_conditions
from common.config.recipe import Recipe
from common.config.rollout import Kind
from common.errors import DataError
from common.guidance import GuidedPolicy
from common.machine import autocast
from common.models.families import PolicyModule, TokenizerModule
from common.protocols import Condition, ImageSource, ImageTokenizer
from common.reward_terms import RewardTerms
from common.sample_order import SampleOrder
from common.seeding import generator
from common.token_distribution import TokenDistribution
from common.types import StepReport
from deploy.local_methods import post_train_in_parts
from learner.advantage import advantages, flat_groups, reward_spread
from learner.code_prices import code_prices
from learner.embedding_regulariser import embedding_regulariser
from learner.loss import ce_prior, frozen_reference, kl_prior, kl_to_behaviour, surrogate_loss
from learner.optimizer import build_optimizer
from learner.rows import Rows
from learner.step_sums import StepSums
from learner.token_logprobs import TokenLogprobs, token_logprobs

# kind, condition, terms of the reward, credit by gradient (None under another), context [B, T-1] and targets
# [B, T] (both [B, 0] of free-running groups), samples and behaviour log-probs [B, G, T]
Groups = tuple[Kind, Condition, RewardTerms, CodeCredit | None, Tensor, Tensor, Tensor, Tensor]
Reward = DecodedReward | Mapping[Kind, DecodedReward]  # one for each kind of group, where a step has several


def post_train(
    policy: PolicyModule,
    tokenizer: ImageTokenizer,
    reward: Reward,
    source: ImageSource,
    recipe: Recipe,
    device: torch.device,
) -> Iterator[StepReport]:
    """Train `policy` in place, one optimizer step at a time; yields each step's report."""
    learner = recipe.learner
    if recipe.is_scored_in_learner:  # another method than the paper's
        trainable = cast(TokenizerModule, tokenizer)
        yield from post_train_in_parts(policy, trainable, _of(reward, "teacher_forced"), source, recipe, device)
        return
    reference = frozen_reference(policy, learner)  # None unless the prior is KL
    regulariser = embedding_regulariser(policy, recipe, device)  # None unless learner.embedding_weight is set
    optimizer = build_optimizer(policy, learner, regulariser)
    codes_VD = codebook_codes(tokenizer, device) if recipe.has_code_gradients else None
    for step in range(learner.num_steps):
        groups = roll_out_step(policy, tokenizer, reward, source, recipe, device, step)
        yield learn(policy, optimizer, groups, recipe, device, step, reference, codes_VD, regulariser)


def roll_out_step(policy, tokenizer, reward, source, recipe: Recipe, device, step: int) -> list[Groups]:
    """The groups of a step's tickets; a ticket without a readable image gives none."""
    first = step * recipe.learner.images_per_step
    size = recipe.actors.images_per_ticket
    tickets = (range(start, start + size) for start in range(first, first + recipe.learner.images_per_step, size))
    rolled_out = [roll_out(policy, tokenizer, reward, source, recipe, device, samples) for samples in tickets]
    groups = [each for each in rolled_out if each is not None]
    if not groups:
        raise DataError(f"none of the {recipe.learner.images_per_step} images of step {step + 1} can be read")
    return groups


@torch.no_grad()
def roll_out(policy, tokenizer, reward, source, recipe: Recipe, device, samples: range) -> Groups | None:
    """Score G samples of each source image: what a reward actor does with a ticket. None: no image is readable."""
    kind = recipe.kind_of(samples[0])
    recipe, reward = recipe.of_kind(kind), _of(reward, kind)
    order = SampleOrder(recipe.seed, len(source))
    images = batch_of(start_reading(source, [order.image_index(index) for index in samples]))
    if not isinstance(images, ImageBatch):
        return None
    kept = [samples[position] for position in images.positions]
    pixels_BCHW, condition = images.tensors(device)
    if kind == "free_running":
        no_pixels = pixels_BCHW[:, :, :0, :0]  # an image says which condition, and nothing else
        sources = Sources(no_pixels, condition, images.image_ids, images.texts)
        return run_free(policy, reward, sources, recipe, device, kept)

    # 1. The image's own codes are the targets; with noise they become the teacher-forcing context.
    targets_BT = tokenizer.encode(pixels_BCHW)
    chances = [torch.rand(1, generator=generator(recipe.seed, "condition drop", index)) for index in kept]
    condition = drop_conditions(policy, condition, torch.cat(chances) < recipe.context.condition_drop)
    noise = ContextNoise.of(recipe)
    context_BT = noise.context(policy, condition, targets_BT, tokenizer.codebook_size, recipe.seed, kept)

    # 2. One forward gives the distribution at every position; each of the G samples draws from all of them.
    group = recipe.group
    draws = [generator(recipe.seed, "group samples", index) for index in kept]
    with autocast(recipe.compute, device):
        hidden_BTD = policy(condition, context_BT, head=False)
        samples_BGT, logprobs_BGT = sample_groups(
            policy.logits, hidden_BTD, group.size, TokenDistribution.of(group), draws
        )

    # 3. A sample is as good as the picture it decodes to: squared error and perceptual distance to the image.
    sources = Sources(pixels_BCHW, condition, images.image_ids, images.texts)
    terms = reward.measure(samples_BGT, sources, StageClock())
    terms.require_whole()
    if terms.gradient_BTD is None:
        return kind, condition, terms, None, context_BT, targets_BT, samples_BGT, logprobs_BGT

    # Credit by gradient: the decoder has also said how the reward changes with the codes. Where no term needs to
    # compare samples, one of them is kept, to measure the KL on.
    with autocast(recipe.compute, device):
        gradient_BTD, distribution = terms.gradient_BTD, TokenDistribution.of(group)
        credit = code_credit(policy.logits, hidden_BTD, samples_BGT, gradient_BTD, tokenizer, distribution)
    K = recipe.num_samples_kept
    return kind, condition, terms, credit, context_BT, targets_BT, samples_BGT[:, :K], logprobs_BGT[:, :K]


def run_free(policy, reward, sources: Sources, recipe: Recipe, device, kept: list[int]) -> Groups:
    """Groups of another kind: samples go on from their own tokens, for a condition alone, and judges score them.

    Their log-probabilities are of the distribution that they are drawn from, guidance included, and come from a
    forward under teacher forcing, like those that the learner compares with them.
    """
    group, distribution, condition = recipe.group, TokenDistribution.of(recipe.group), sources.condition
    draws = [generator(recipe.seed, "free-running samples", index) for index in kept]
    with autocast(recipe.compute, device):
        scale, learned_scale = recipe.rollout.guidance_scale, recipe.learned_guidance_scale
        samples_BGT = sample_own(policy, condition, group.size, distribution, scale, draws)
        guided = GuidedPolicy(policy, learned_scale, policy)
        logprobs_BGT = own_logprobs(guided, condition, samples_BGT, distribution)
    terms = reward.measure(samples_BGT, sources, StageClock())
    terms.require_whole()
    nothing_B0 = samples_BGT.new_empty(len(kept), 0)
    return recipe.rollout.kind, condition, terms, None, nothing_B0, nothing_B0, samples_BGT, logprobs_BGT


def learn(
    policy,
    optimizer,
    tickets: list[Groups],
    recipe: Recipe,
    device,
    step: int,
    reference=None,
    codes_VD=None,
    regulariser=None,
) -> StepReport:
    """One optimizer step on the groups of all tickets: the learner's work."""
    num_groups = sum(len(samples_BGT) for *_, samples_BGT, _ in tickets)
    sums = StepSums()
    optimizer.zero_grad()
    for kind in recipe.rollout.shares:
        own = [groups for of_kind, *groups in tickets if of_kind == kind]
        if own:
            sums += backward(
                policy, own, recipe.of_kind(kind), device, num_groups, reference, codes_VD, regulariser
            )

    # 6. AdamW on the clipped gradient.
    trained = [*policy.parameters(), *(regulariser.parameters() if regulariser is not None else ())]
    grad_norm = nn.utils.clip_grad_norm_(trained, recipe.learner.max_grad_norm)
    optimizer.step()
    return sums.report(step + 1, float(grad_norm), stage_seconds={})


def backward(
    policy, tickets, recipe: Recipe, device, num_groups: int, reference, codes_VD, regulariser
) -> StepSums:
    """Add the gradient of these groups, of the step's `num_groups`; gives the sums for the report."""
    learner = recipe.learner
    conditions, all_terms, credits, *tensors = zip(*tickets, strict=True)
    condition = {name: torch.cat([each[name] for each in conditions]) for name in conditions[0]}

    # 4. A sample's advantage is its reward relative to its group: [B, G], or [B, G, T] for single tokens. Credit
    # by gradient gives every codebook entry a price at every place instead; only other terms compare samples.
    terms = RewardTerms.joined(all_terms)
    rewards_BG = terms.rewards(recipe.reward.weights)
    B = len(rewards_BG)
    advantages_BGT, prices = advantages(terms, recipe), None
    if advantages_BGT is not None:  # without a reward they are zeros, made on the CPU
        advantages_BGT = advantages_BGT.to(device)
    if recipe.has_code_gradients:
        prices = code_prices(CodeCredit.joined(credits), codes_VD, recipe, torch.ones(B, device=device))
    context_BT, targets_BT, samples_BGT, old_logprobs_BGT = map(torch.cat, tensors)
    rows = Rows(condition, context_BT, targets_BT, samples_BGT, old_logprobs_BGT, advantages_BGT, prices)
    runs_free = recipe.rollout.kind == "free_running"
    rows = rows.with_own_contexts() if runs_free else rows
    rows_a_group = len(rows) // B

    # 5. The G samples share one context, so one forward and backward per group serves them all. Free-running
    # samples have a row each, or two under guidance: the probabilities are those that they were drawn with.
    def logprobs(model: PolicyModule, micro: Rows) -> TokenLogprobs:
        guided = GuidedPolicy(model, recipe.learned_guidance_scale if runs_free else 1.0, model)
        with autocast(recipe.compute, device):
            hidden_BTD = guided.hidden(micro.condition, micro.context_NT)
            distribution, tokens = TokenDistribution.of(recipe.group), (micro.samples_NKT, micro.targets_NT)
            return token_logprobs(
                guided.logits, hidden_BTD, *tokens, distribution, learner.logit_rows, micro.prices
            )

    totals = torch.zeros(7)
    size = learner.micro_batch_size * rows_a_group
    for start in range(0, len(rows), size):
        micro = rows[start : start + size]
        with regulariser.watching() if regulariser is not None else nullcontext():
            logprobs_BGT, target_logprobs_BT, entropy_BT, advantage_BT = logprobs(policy, micro)
        old_BGT = micro.behaviour_logprobs_NKT
        policy_B, ratio_BGT = surrogate_loss(logprobs_BGT, old_BGT, micro.advantages_NKT, learner)
        if advantage_BT is not None:  # of what the policy proposes, on average: by credit by gradient
            policy_B = policy_B - advantage_BT.mean(dim=1)
        ce_B, kl_prior_B = ce_prior(target_logprobs_BT), torch.zeros_like(policy_B)
        ce_B = ce_B * (not runs_free)  # without an image there are no codes of one
        if reference is not None:
            with torch.no_grad():
                reference_BGT = logprobs(reference, replace(micro, prices=None)).samples_BGT
            kl_prior_B = kl_prior(logprobs_BGT, reference_BGT)
        loss_B = policy_B + learner.ce_weight * (ce_B if reference is None else kl_prior_B)
        if regulariser is not None:
            with autocast(recipe.compute, device):
                loss_B = loss_B + learner.embedding_weight * regulariser(micro.targets_NT)
        (loss_B.sum() / rows_a_group / num_groups).backward()
        clipped_B = ((ratio_BGT - 1).abs() > learner.clip_range).float().mean(dim=(1, 2))
        kl_B = kl_to_behaviour(logprobs_BGT, old_BGT)
        of_rows = (loss_B, policy_B, ce_B, kl_prior_B, clipped_B, kl_B, entropy_BT.mean(dim=1))
        totals += torch.stack([each.detach().sum() / rows_a_group for each in of_rows]).cpu()

    names = ("loss", "policy_loss", "ce_prior", "kl_prior", "clip_fraction", "kl", "entropy")
    rewards = {"reward_mean": float(rewards_BG.mean() * B), "reward_std": float(reward_spread(rewards_BG).sum())}
    return StepSums(
        num_groups=B,
        num_flat=int(flat_groups(advantages_BGT, prices).sum()) if recipe.reward.weights else 0,
        num_dropped=0 if terms.dropped is None else int(terms.dropped.sum()),
        sums=dict(zip(names, totals.tolist(), strict=True)) | rewards,
        reward_terms={name: float(term_BG.mean() * B) for name, term_BG in terms.terms.items()},
        better=terms.better(recipe.reward.own_terms),
        num_measured=dict.fromkeys(terms.terms, B) | {"ce_prior": 0 if runs_free else B},
    )


def _of(reward: Reward, kind: Kind) -> DecodedReward:
    return reward[kind] if isinstance(reward, Mapping) else reward
