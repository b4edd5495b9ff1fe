"""Teacher-forced groups: the image's own codes, noisy, are the context of all of its samples.

Letters: B images, G samples per group, T image tokens, D width of hidden states.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from actors.group_sampling import sample_groups
from actors.rollouts.rollout import Draws, RolloutSettings
from common.clock import StageClock
from common.condition_drop import drop_conditions
from common.machine import autocast
from common.protocols import Condition, ImageTokenizer, Policy
from common.seeding import generator


class TeacherForced:
    def __init__(self, settings: RolloutSettings, tokenizer: ImageTokenizer):
        self._settings = settings
        self._tokenizer = tokenizer

    def draw(
        self,
        policy: Policy,
        pixels_BCHW: Tensor,
        condition: Condition,
        sample_indices: Sequence[int],
        clock: StageClock,
    ) -> Draws:
        settings, device = self._settings, pixels_BCHW.device
        with clock("encode"):
            targets_BT = self._tokenizer.encode(pixels_BCHW)
        with clock("policy"):
            chances = [
                torch.rand(1, generator=each) for each in self._generators("condition drop", sample_indices)
            ]
            condition = drop_conditions(policy, condition, torch.cat(chances) < settings.condition_drop)
            context_BT = settings.context.context(
                policy, condition, targets_BT, self._tokenizer.codebook_size, settings.seed, sample_indices
            )
            if not settings.group_size:
                none_B0T = targets_BT[:, None][:, :0]
                return Draws(condition, context_BT, targets_BT, none_B0T, none_B0T.float(), None)
            with autocast(settings.compute, device):
                hidden_BTD = policy(condition, context_BT, head=False)
        with clock("sample"), autocast(settings.compute, device):
            draws = self._generators("group samples", sample_indices)
            samples_BGT, logprobs_BGT = sample_groups(
                policy.logits, hidden_BTD, settings.group_size, settings.distribution, draws
            )
        return Draws(condition, context_BT, targets_BT, samples_BGT, logprobs_BGT, hidden_BTD)

    def _generators(self, purpose: str, sample_indices: Sequence[int]) -> list[torch.Generator]:
        return [generator(self._settings.seed, purpose, index) for index in sample_indices]
