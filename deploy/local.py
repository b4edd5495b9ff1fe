"""The whole algorithm in one process: read this page to know what VA-π does.

No Ray, no queue, no clock. The service computes exactly this, with reward actors and learner ranks in their own
processes; a test checks for the same losses and the same final weights.

Letters: B source images (groups), G samples per group, T image tokens, D width of hidden states.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from actors.code_credit import code_credit
from actors.context_noise import noisy_context
from actors.group_sampling import sample_groups
from actors.image_batch import ImageBatch, batch_of, start_reading
from actors.rewards.decoded_reward import DecodedReward
from actors.rewards.term import Sources
from common.clock import StageClock
from common.code_credit import CodeCredit, codebook_codes
from common.condition_drop import drop_conditions
from common.config.recipe import Recipe
from common.errors import DataError
from common.machine import autocast
from common.models.families import PolicyModule
from common.protocols import Condition, ImageSource, ImageTokenizer
from common.reward_terms import RewardTerms
from common.sample_order import SampleOrder
from common.seeding import generator
from common.token_distribution import TokenDistribution
from common.types import StepReport
from learner.advantage import advantages, flat_groups, reward_spread
from learner.code_prices import code_prices
from learner.loss import ce_prior, frozen_reference, kl_prior, kl_to_behaviour, surrogate_loss
from learner.optimizer import build_optimizer
from learner.rows import Rows
from learner.token_logprobs import TokenLogprobs, token_logprobs

# condition, terms of the reward, credit by gradient (None under another), context [B, T-1], targets [B, T],
# samples and behaviour log-probs [B, G, T]
Groups = tuple[Condition, RewardTerms, CodeCredit | None, Tensor, Tensor, Tensor, Tensor]


def post_train(
    policy: PolicyModule,
    tokenizer: ImageTokenizer,
    reward: DecodedReward,
    source: ImageSource,
    recipe: Recipe,
    device: torch.device,
) -> Iterator[StepReport]:
    """Train `policy` in place, one optimizer step at a time; yields each step's report."""
    learner = recipe.learner
    optimizer = build_optimizer(policy, learner)
    reference = frozen_reference(policy, learner)  # None unless the prior is KL
    codes_VD = codebook_codes(tokenizer, device) if recipe.has_code_gradients else None
    for step in range(learner.num_steps):
        groups = roll_out_step(policy, tokenizer, reward, source, recipe, device, step)
        yield learn(policy, optimizer, groups, recipe, device, step, reference, codes_VD)


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
    order = SampleOrder(recipe.seed, len(source))
    images = batch_of(start_reading(source, [order.image_index(index) for index in samples]))
    if not isinstance(images, ImageBatch):
        return None
    kept = [samples[position] for position in images.positions]
    pixels_BCHW, condition = images.tensors(device)

    # 1. The image's own codes are the targets; with noise they become the teacher-forcing context.
    targets_BT = tokenizer.encode(pixels_BCHW)
    noises = [recipe.context_noise(index) for index in kept]
    draws = [generator(recipe.seed, "context noise", index) for index in kept]
    context_BT = noisy_context(targets_BT, noises, tokenizer.codebook_size, draws)
    chances = [torch.rand(1, generator=generator(recipe.seed, "condition drop", index)) for index in kept]
    condition = drop_conditions(policy, condition, torch.cat(chances) < recipe.context.condition_drop)

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
        return condition, terms, None, context_BT, targets_BT, samples_BGT, logprobs_BGT

    # Credit by gradient: the decoder has also said how the reward changes with the codes. Where no term needs to
    # compare samples, one of them is kept, to measure the KL on.
    with autocast(recipe.compute, device):
        gradient_BTD, distribution = terms.gradient_BTD, TokenDistribution.of(group)
        credit = code_credit(policy.logits, hidden_BTD, samples_BGT, gradient_BTD, tokenizer, distribution)
    K = recipe.num_samples_kept
    return condition, terms, credit, context_BT, targets_BT, samples_BGT[:, :K], logprobs_BGT[:, :K]


def learn(
    policy, optimizer, tickets: list[Groups], recipe: Recipe, device, step: int, reference=None, codes_VD=None
) -> StepReport:
    """One optimizer step on the groups of all tickets: the learner's work."""
    learner = recipe.learner
    conditions, all_terms, credits, *tensors = zip(*tickets, strict=True)
    condition = {name: torch.cat([each[name] for each in conditions]) for name in conditions[0]}

    # 4. A sample's advantage is its reward relative to its group: [B, G], or [B, G, T] for single tokens. Credit
    # by gradient gives every codebook entry a price at every place instead; only other terms compare samples.
    terms = RewardTerms.joined(all_terms)
    rewards_BG = terms.rewards(recipe.reward.weights)
    num_groups = len(rewards_BG)
    advantages_BGT, prices = advantages(terms, recipe), None
    if advantages_BGT is not None:  # without a reward they are zeros, made on the CPU
        advantages_BGT = advantages_BGT.to(device)
    if recipe.has_code_gradients:
        prices = code_prices(CodeCredit.joined(credits), codes_VD, recipe, torch.ones(num_groups, device=device))
    context_BT, targets_BT, samples_BGT, old_logprobs_BGT = map(torch.cat, tensors)
    rows = Rows(condition, context_BT, targets_BT, samples_BGT, old_logprobs_BGT, advantages_BGT, prices)

    # 5. The G samples share one context, so one forward and backward per group serves them all.
    def logprobs(model: PolicyModule, micro: Rows) -> TokenLogprobs:
        with autocast(recipe.compute, device):
            hidden_BTD = model(micro.condition, micro.context_NT, head=False)
            distribution, tokens = TokenDistribution.of(recipe.group), (micro.samples_NKT, micro.targets_NT)
            return token_logprobs(
                model.logits, hidden_BTD, *tokens, distribution, learner.logit_rows, micro.prices
            )

    totals = torch.zeros(6)
    optimizer.zero_grad()
    for start in range(0, num_groups, learner.micro_batch_size):
        micro = rows[start : start + learner.micro_batch_size]
        logprobs_BGT, target_logprobs_BT, entropy_BT, advantage_BT = logprobs(policy, micro)
        old_BGT = micro.behaviour_logprobs_NKT
        policy_B, ratio_BGT = surrogate_loss(logprobs_BGT, old_BGT, micro.advantages_NKT, learner)
        if advantage_BT is not None:  # of what the policy proposes, on average: by credit by gradient
            policy_B = policy_B - advantage_BT.mean(dim=1)
        prior_B = ce_B = ce_prior(target_logprobs_BT)  # the prior, unless it is the KL from the initial policy
        if reference is not None:
            with torch.no_grad():
                reference_BGT = logprobs(reference, replace(micro, prices=None)).samples_BGT
            prior_B = kl_prior(logprobs_BGT, reference_BGT)
        loss = (policy_B + learner.ce_weight * prior_B).sum() / num_groups
        loss.backward()
        clipped = ((ratio_BGT - 1).abs() > learner.clip_range).float().mean() * len(policy_B)
        kl_B = kl_to_behaviour(logprobs_BGT, old_BGT)
        sums = [policy_B.sum(), prior_B.sum(), ce_B.sum(), clipped, kl_B.sum(), entropy_BT.mean(dim=1).sum()]
        totals += torch.stack(sums).detach().cpu()

    # 6. AdamW on the clipped gradient.
    grad_norm = nn.utils.clip_grad_norm_(policy.parameters(), learner.max_grad_norm)
    optimizer.step()

    policy_mean, prior_mean, ce_mean, clip_fraction, kl, entropy = (totals / num_groups).tolist()
    return StepReport(
        step=step + 1,
        num_groups=num_groups,
        loss=policy_mean + learner.ce_weight * prior_mean,
        policy_loss=policy_mean,
        ce_prior=ce_mean,
        kl_prior=0.0 if reference is None else prior_mean,
        reward_mean=float(rewards_BG.mean()),
        reward_terms={name: float(term_BG.mean()) for name, term_BG in terms.terms.items()},
        better=terms.better(recipe.reward.own_terms),
        reward_std=float(reward_spread(rewards_BG).mean()),
        num_flat=int(flat_groups(advantages_BGT, prices).sum()) if recipe.reward.weights else 0,
        clip_fraction=clip_fraction,
        kl=kl,
        entropy=entropy,
        grad_norm=float(grad_norm),
    )
