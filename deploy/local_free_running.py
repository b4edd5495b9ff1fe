"""Free-running groups in one process, alone or beside teacher-forced ones; read deploy/local.py first.

Samples go on from their own tokens, for a condition alone, and judges of single pictures score them. There is no
image to compare with, so no cross-entropy on one's codes: a KL prior holds the policy, or the other groups do.

Letters: B conditions (groups), G samples per group, N = B · G rows, T image tokens.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from actors.rewards.decoded_reward import DecodedReward
from actors.rewards.term import Sources
from actors.rollouts.free_running import own_logprobs, sample_own
from common.clock import StageClock
from common.code_credit import codebook_codes
from common.config.recipe import Recipe
from common.config.rollout import Kind
from common.errors import DataError
from common.guidance import GuidedPolicy
from common.machine import autocast
from common.models.families import PolicyModule
from common.protocols import Condition, ImageSource, ImageTokenizer
from common.reward_terms import RewardTerms
from common.seeding import generator
from common.token_distribution import TokenDistribution
from common.types import StepReport
from deploy import local
from learner.advantage import advantages
from learner.loss import frozen_reference
from learner.optimizer import build_optimizer
from learner.rows import Rows
from learner.step_sums import StepSums
from learner.token_logprobs import TokenLogprobs, token_logprobs

OwnGroups = tuple[Condition, RewardTerms, Tensor, Tensor]  # samples and behaviour log-probs [B, G, T]


def post_train(
    policy: PolicyModule,
    tokenizer: ImageTokenizer,
    rewards: Mapping[Kind, DecodedReward],
    source: ImageSource,
    recipe: Recipe,
    device: torch.device,
) -> Iterator[StepReport]:
    """As `post_train` of local.py, where some or all groups of a step are free-running."""
    learner = recipe.learner
    reference, optimizer = frozen_reference(policy, learner), build_optimizer(policy, learner)
    codes_VD = codebook_codes(tokenizer, device) if recipe.has_code_gradients else None
    forced, own = recipe.of_kind("teacher_forced"), recipe.of_kind("free_running")
    for step in range(learner.num_steps):
        forced_groups: list[local.Groups | None] = []
        own_groups: list[OwnGroups | None] = []
        for samples in local.tickets_of(recipe, step):
            kind = recipe.kind_of(samples[0])
            if kind == "free_running":
                own_groups.append(roll_out(policy, rewards[kind], source, own, device, samples))
            else:
                judged = tokenizer, rewards[kind], source
                forced_groups.append(local.roll_out(policy, *judged, forced, device, samples))
        forced_found = [groups for groups in forced_groups if groups is not None]
        own_found = [groups for groups in own_groups if groups is not None]
        num_groups = sum(len(groups[-1]) for groups in forced_found) + sum(len(groups[-1]) for groups in own_found)
        if not num_groups:
            raise DataError(f"none of the {learner.images_per_step} images of step {step + 1} can be read")

        optimizer.zero_grad()
        sums = StepSums()
        if forced_found:
            sums += local.backward(policy, forced_found, forced, device, num_groups, reference, codes_VD)
        if own_found:
            sums += backward(policy, own_found, own, device, num_groups, reference)
        grad_norm = nn.utils.clip_grad_norm_(policy.parameters(), learner.max_grad_norm)
        optimizer.step()
        yield sums.report(step + 1, float(grad_norm), stage_seconds={})


@torch.no_grad()
def roll_out(policy, reward, source, recipe: Recipe, device, samples: range) -> OwnGroups | None:
    """Score G samples of each condition.

    Their log-probabilities are of the distribution that they are drawn from, guidance included, and come from a
    forward under teacher forcing, like those that the learner compares with them.
    """
    found = local.read(source, recipe, samples)
    if found is None:
        return None
    images, kept = found
    pixels_BCHW, condition = images.tensors(device)
    group, distribution = recipe.group, TokenDistribution.of(recipe.group)
    draws = [generator(recipe.seed, "free-running samples", index) for index in kept]
    with autocast(recipe.compute, device):
        samples_BGT = sample_own(policy, condition, group.size, distribution, recipe.rollout.guidance_scale, draws)
        guided = GuidedPolicy(policy, recipe.learned_guidance_scale, policy)
        logprobs_BGT = own_logprobs(guided, condition, samples_BGT, distribution)
    no_pixels = pixels_BCHW[:, :, :0, :0]  # an image says which condition, and nothing else
    sources = Sources(no_pixels, condition, images.image_ids, images.texts)
    terms = reward.measure(samples_BGT, sources, StageClock())
    terms.require_whole()
    return condition, terms, samples_BGT, logprobs_BGT


def backward(policy, tickets: list[OwnGroups], recipe: Recipe, device, num_groups: int, reference) -> StepSums:
    """As `backward` of local.py. A sample is a row, or two under guidance: its probabilities are those that it was
    drawn with."""
    conditions, all_terms, samples, logprobs = zip(*tickets, strict=True)
    condition = {name: torch.cat([each[name] for each in conditions]) for name in conditions[0]}
    terms, samples_BGT = RewardTerms.joined(all_terms), torch.cat(samples)
    advantages_BG = advantages(terms, recipe)
    assert advantages_BG is not None, "free-running samples are compared with each other"
    nothing_B0 = samples_BGT.new_empty(len(samples_BGT), 0)
    groups = Rows(condition, nothing_B0, nothing_B0, samples_BGT, torch.cat(logprobs), advantages_BG.to(device))

    def logprobs_of(model: PolicyModule, micro: Rows) -> TokenLogprobs:
        guided = GuidedPolicy(model, recipe.learned_guidance_scale, model)
        with autocast(recipe.compute, device):
            hidden_NTD = guided.hidden(micro.condition, micro.context_NT)
            distribution, tokens = TokenDistribution.of(recipe.group), (micro.samples_NKT, micro.targets_NT)
            return token_logprobs(guided.logits, hidden_NTD, *tokens, distribution, recipe.learner.logit_rows)

    rows = groups.with_own_contexts()
    return local.backward_of_rows(rows, terms, logprobs_of, policy, recipe, num_groups, reference)
