"""The noisy teacher-forcing context.

Letters: B images, T image tokens, V codebook entries.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from actors.group_sampling import sample_groups
from common import seeding
from common.config.algorithm import ContextKernel
from common.config.recipe import Recipe
from common.config.service import ComputeSection
from common.machine import autocast
from common.protocols import Condition, Policy
from common.token_distribution import TokenDistribution


@dataclass(frozen=True)
class ContextNoise:
    """How contexts are made noisy."""

    level: Callable[[int], float]  # ξ of a sample, by its index
    per_sequence: bool  # each image's own ξ is uniform between 0 and its level
    kernel: ContextKernel
    distribution: TokenDistribution  # of kernel self
    compute: ComputeSection
    is_whole: bool  # of all T tokens

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """That of a training run."""
        context = recipe.context
        return cls(
            level=recipe.context_noise,
            per_sequence=context.noise_per_sequence,
            kernel=context.kernel,
            distribution=TokenDistribution.of(recipe.group),
            compute=recipe.compute,
            is_whole=recipe.has_whole_context,
        )

    def context(
        self,
        policy: Policy,
        condition: Condition,
        targets_BT: Tensor,
        codebook_size: int,
        seed: int,
        sample_indices: Sequence[int],
    ) -> Tensor:
        """The context int64 [B, T-1], or [B, T], of images with these targets, the run's `sample_indices`.

        Everything random about a sample comes from `seed` and its index. The policy is asked, with the condition,
        only under kernel self.
        """

        def generators(purpose: str) -> list[torch.Generator]:
            return [seeding.generator(seed, purpose, index) for index in sample_indices]

        noises = [self.level(index) for index in sample_indices]
        if self.per_sequence:
            draws = generators("context noise level")
            noises = [
                noise * float(torch.rand((), generator=draw)) for noise, draw in zip(noises, draws, strict=True)
            ]
        proposals_BT = None
        if self.kernel == "self" and any(noises):
            with torch.no_grad(), autocast(self.compute, targets_BT.device):
                hidden_BTD = policy(condition, targets_BT[:, :-1], head=False)
                draws = generators("context samples")
                samples_B1T, _ = sample_groups(policy.logits, hidden_BTD, 1, self.distribution, draws)
            proposals_BT = samples_B1T[:, 0, :-1]
        draws = generators("context noise")
        return noisy_context(targets_BT, noises, codebook_size, draws, self.kernel, proposals_BT, self.is_whole)


def noisy_context(
    target_tokens_BT: Tensor,
    noises: Sequence[float],
    codebook_size: int,
    generators: Sequence[torch.Generator],
    kernel: ContextKernel = "uniform",
    proposals_BT: Tensor | None = None,
    whole: bool = False,
) -> Tensor:
    """The first T-1 target tokens, each replaced with its image's probability ξ by what `kernel` gives.

    Drawn once per group: the group's samples and the learner share the context. uniform: any id, which may equal
    the original; other: any other id; self: that of `proposals_BT`, int64 [B, T-1]. One CPU generator per image;
    returns int64 [B, T-1]; all T tokens if `whole`.
    """
    context_BT = (target_tokens_BT if whole else target_tokens_BT[:, :-1]).clone()
    length = context_BT.shape[1]
    num_others = codebook_size - 1 if kernel == "other" else codebook_size
    for image, (context_T, noise, generator) in enumerate(zip(context_BT, noises, generators, strict=True)):
        if noise == 0:
            continue
        replaced_T = (torch.rand(length, generator=generator) < noise).to(context_T.device)
        if proposals_BT is not None:
            random_T = proposals_BT[image]
        else:
            random_T = torch.randint(num_others, (length,), generator=generator).to(context_T.device)
        if kernel == "other":
            random_T = random_T + (random_T >= context_T)  # past the token's own id
        context_T.copy_(torch.where(replaced_T, random_T, context_T))
    return context_BT
