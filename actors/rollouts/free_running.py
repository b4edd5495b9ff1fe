"""Free-running groups: each sample goes on from its own tokens, and so is its own context.

What it was drawn from, guidance and truncation included, is what its log-probabilities are of. They come from a
forward under teacher forcing, as the learner makes it, and not from the cache, whose numbers differ in their last
bits: in bfloat16 by enough to look like another policy.

Letters: B conditions, G samples per group, N = B · G samples, T image tokens, V codebook entries.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from actors.free_running import free_running
from actors.rollouts.rollout import Draws, RolloutSettings
from common.clock import StageClock
from common.guidance import GuidedPolicy
from common.machine import autocast
from common.protocols import Condition, ImageTokenizer, Policy
from common.seeding import generator
from common.token_distribution import TokenDistribution


class FreeRunning:
    def __init__(self, settings: RolloutSettings, tokenizer: ImageTokenizer):
        self._settings = settings

    def draw(
        self,
        policy: Policy,
        pixels_BCHW: Tensor,
        condition: Condition,
        sample_indices: Sequence[int],
        clock: StageClock,
    ) -> Draws:
        """The pictures, if there are any, are not looked at."""
        settings = self._settings
        device = next(iter(condition.values())).device
        draws = [generator(settings.seed, "free-running samples", index) for index in sample_indices]
        with clock("sample"), autocast(settings.compute, device):
            samples_BGT = sample_own(
                policy, condition, settings.group_size, settings.distribution, settings.guidance_scale, draws
            )
        with clock("policy"), autocast(settings.compute, device):
            logprobs_BGT = own_logprobs(
                GuidedPolicy(policy, settings.learned_guidance_scale, policy),
                condition,
                samples_BGT,
                settings.distribution,
            )
        nothing_B0 = samples_BGT.new_empty(len(samples_BGT), 0)
        return Draws(condition, nothing_B0, nothing_B0, samples_BGT, logprobs_BGT)


def sample_own(
    policy: Policy,
    condition: Condition,
    group_size: int,
    distribution: TokenDistribution,
    guidance_scale: float,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Free-running samples int64 [B, G, T] of B conditions, with a CPU generator each."""
    G, T = group_size, policy.num_tokens
    uniforms_BGT = torch.stack([torch.rand(G, T, generator=each, dtype=torch.float64) for each in generators])
    device = next(iter(condition.values())).device
    uniforms_NT = uniforms_BGT.flatten(0, 1).to(device)

    def pick(logits_NV: Tensor, place: int) -> Tensor:
        return distribution.draw(logits_NV, uniforms_NT[:, place, None])[:, 0]

    tokens_NT = free_running(policy, for_each_sample(condition, G), [guidance_scale] * T, pick)
    return tokens_NT.unflatten(0, (-1, G))


@torch.no_grad()
def own_logprobs(
    guided: GuidedPolicy, condition: Condition, samples_BGT: Tensor, distribution: TokenDistribution
) -> Tensor:
    """Log-probabilities float32 [B, G, T] of samples that are their own contexts; logits of one at a time."""
    samples_NT, G = samples_BGT.flatten(0, 1), samples_BGT.shape[1]
    hidden_NTD = guided.hidden(for_each_sample(condition, G), samples_NT[:, :-1])
    logprobs = [
        distribution.log_probabilities(guided.logits(hidden_TD), samples_T[:, None])[:, 0]
        for hidden_TD, samples_T in zip(hidden_NTD, samples_NT, strict=True)
    ]
    return torch.stack(logprobs).unflatten(0, (-1, G))


def for_each_sample(condition: Condition, group_size: int) -> Condition:
    return {name: column.repeat_interleave(group_size, dim=0) for name, column in condition.items()}
