"""The whole algorithm in one process: read this page to know what VA-π does.

No Ray, no queue, no clock. The service computes exactly this, with reward actors and learner ranks in their own
processes; a test checks for the same losses and the same final weights. What is beside the paper's method, such as
whole samples of the generator's own with judges as their reward, starts from local_methods.py.

Letters: B source images (groups), G samples per group, T image tokens, D width of hidden states.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from actors.code_credit import code_credit
from actors.context_noise import ContextNoise
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
from learner.step_sums import StepSums
from learner.token_logprobs import TokenLogprobs, token_logprobs

# condition, terms of the reward, credit by gradient (None under another), context [B, T-1], targets [B, T],
# samples and behaviour log-probs [B, G, T]
Groups = tuple[Condition, RewardTerms, CodeCredit | None, Tensor, Tensor, Tensor, Tensor]
LogprobsOf = Callable[[PolicyModule, Rows], TokenLogprobs]


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
    reference = frozen_reference(policy, learner)  # None unless the prior is KL
    optimizer = build_optimizer(policy, learner)
    codes_VD = codebook_codes(tokenizer, device) if recipe.has_code_gradients else None
    for step in range(learner.num_steps):
        groups = roll_out_step(policy, tokenizer, reward, source, recipe, device, step)
        yield learn(policy, optimizer, groups, recipe, device, step, reference, codes_VD)


def roll_out_step(policy, tokenizer, reward, source, recipe: Recipe, device, step: int) -> list[Groups]:
    """The groups of a step's tickets; a ticket without a readable image gives none."""
    tickets = tickets_of(recipe, step)
    rolled_out = [roll_out(policy, tokenizer, reward, source, recipe, device, samples) for samples in tickets]
    groups = [each for each in rolled_out if each is not None]
    if not groups:
        raise DataError(f"none of the {recipe.learner.images_per_step} images of step {step + 1} can be read")
    return groups


def tickets_of(recipe: Recipe, step: int) -> list[range]:
    """Each some samples of the run: numbers of groups."""
    size, num_images = recipe.actors.images_per_ticket, recipe.learner.images_per_step
    return [range(start, start + size) for start in range(step * num_images, (step + 1) * num_images, size)]


def read(source: ImageSource, recipe: Recipe, samples: range) -> tuple[ImageBatch, list[int]] | None:
    """The images of these samples that can be read, and which they are of. None: not one."""
    order = SampleOrder(recipe.seed, len(source))
    images = batch_of(start_reading(source, [order.image_index(index) for index in samples]))
    if not isinstance(images, ImageBatch):
        return None
    return images, [samples[position] for position in images.positions]


@torch.no_grad()
def roll_out(policy, tokenizer, reward, source, recipe: Recipe, device, samples: range) -> Groups | None:
    """Score G samples of each source image: what a reward actor does with a ticket. None: no image is readable."""
    found = read(source, recipe, samples)
    if found is None:
        return None
    images, kept = found
    pixels_BCHW, condition = images.tensors(device)

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
    optimizer.zero_grad()
    num_groups = sum(len(samples_BGT) for *_, samples_BGT, _ in tickets)
    sums = backward(policy, tickets, recipe, device, num_groups, reference, codes_VD)

    # 6. AdamW on the clipped gradient.
    grad_norm = nn.utils.clip_grad_norm_(policy.parameters(), recipe.learner.max_grad_norm)
    optimizer.step()
    return sums.report(step + 1, float(grad_norm), stage_seconds={})


def backward(
    policy, tickets: list[Groups], recipe: Recipe, device, num_groups: int, reference, codes_VD
) -> StepSums:
    """Add the gradient of these groups, of the step's `num_groups`; gives the sums for the report."""
    conditions, all_terms, credits, *tensors = zip(*tickets, strict=True)
    condition = {name: torch.cat([each[name] for each in conditions]) for name in conditions[0]}

    # 4. A sample's advantage is its reward relative to its group: [B, G], or [B, G, T] for single tokens. Credit
    # by gradient gives every codebook entry a price at every place instead; only other terms compare samples.
    terms = RewardTerms.joined(all_terms)
    advantages_BGT, prices = advantages(terms, recipe), None
    if advantages_BGT is not None:  # without a reward they are zeros, made on the CPU
        advantages_BGT = advantages_BGT.to(device)
    if recipe.has_code_gradients:
        prices = code_prices(
            CodeCredit.joined(credits), codes_VD, recipe, torch.ones(terms.shape_BG[0], device=device)
        )
    context_BT, targets_BT, samples_BGT, old_logprobs_BGT = map(torch.cat, tensors)
    rows = Rows(condition, context_BT, targets_BT, samples_BGT, old_logprobs_BGT, advantages_BGT, prices)

    # 5. The G samples share one context, so one forward and backward per group serves them all.
    def logprobs(model: PolicyModule, micro: Rows) -> TokenLogprobs:
        with autocast(recipe.compute, device):
            hidden_BTD = model(micro.condition, micro.context_NT, head=False)
            distribution, tokens = TokenDistribution.of(recipe.group), (micro.samples_NKT, micro.targets_NT)
            return token_logprobs(
                model.logits, hidden_BTD, *tokens, distribution, recipe.learner.logit_rows, micro.prices
            )

    return backward_of_rows(rows, terms, logprobs, policy, recipe, num_groups, reference)


def backward_of_rows(
    rows: Rows, terms: RewardTerms, logprobs: LogprobsOf, policy, recipe: Recipe, num_groups: int, reference
) -> StepSums:
    """In micro-batches. Rows are groups, or samples that are contexts of their own."""
    learner, B = recipe.learner, terms.shape_BG[0]
    is_own, rows_a_group = recipe.rollout.kind == "free_running", len(rows) // B
    totals, size = torch.zeros(7), learner.micro_batch_size * rows_a_group
    for start in range(0, len(rows), size):
        micro = rows[start : start + size]
        logprobs_BGT, target_logprobs_BT, entropy_BT, advantage_BT = logprobs(policy, micro)
        old_BGT = micro.behaviour_logprobs_NKT
        policy_B, ratio_BGT = surrogate_loss(logprobs_BGT, old_BGT, micro.advantages_NKT, learner)
        if advantage_BT is not None:  # of what the policy proposes, on average: by credit by gradient
            policy_B = policy_B - advantage_BT.mean(dim=1)
        ce_B, kl_prior_B = ce_prior(target_logprobs_BT) * (not is_own), torch.zeros_like(policy_B)
        if reference is not None:
            with torch.no_grad():
                reference_BGT = logprobs(reference, replace(micro, prices=None)).samples_BGT
            kl_prior_B = kl_prior(logprobs_BGT, reference_BGT)
        loss_B = policy_B + learner.ce_weight * (ce_B if reference is None else kl_prior_B)
        (loss_B.sum() / rows_a_group / num_groups).backward()
        clipped_B = ((ratio_BGT - 1).abs() > learner.clip_range).float().mean(dim=(1, 2))
        kl_B = kl_to_behaviour(logprobs_BGT, old_BGT)
        of_rows = (loss_B, policy_B, ce_B, kl_prior_B, clipped_B, kl_B, entropy_BT.mean(dim=1))
        totals += torch.stack([each.detach().sum() / rows_a_group for each in of_rows]).cpu()

    names = ("loss", "policy_loss", "ce_prior", "kl_prior", "clip_fraction", "kl", "entropy")
    rewards_BG = terms.rewards(recipe.reward.weights)
    rewards = {"reward_mean": float(rewards_BG.mean() * B), "reward_std": float(reward_spread(rewards_BG).sum())}
    flat_B = flat_groups(rows.advantages_NKT, rows.prices).view(B, rows_a_group).all(dim=1)
    return StepSums(
        num_groups=B,
        num_flat=int(flat_B.sum()) if recipe.reward.weights else 0,
        num_dropped=0 if terms.dropped is None else int(terms.dropped.sum()),
        sums=dict(zip(names, totals.tolist(), strict=True)) | rewards,
        reward_terms={name: float(term_BG.mean() * B) for name, term_BG in terms.terms.items()},
        better=terms.better(recipe.reward.own_terms),
        num_measured=dict.fromkeys(terms.terms, B) | {"ce_prior": 0 if is_own else B},
    )
