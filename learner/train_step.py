"""One optimizer step from scored groups. Plain torch: DDP wrapping and gathering are elsewhere.

Losses are normalised by the number of groups of the whole step, over all ranks and micro-batches, so that neither
the split nor the micro-batch size changes the gradient.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from common.clock import StageClock
from common.code_credit import CodeCredit
from common.config.recipe import Recipe
from common.finite import quarantine
from common.guidance import GuidedPolicy
from common.machine import autocast
from common.models.families import PolicyModule, TokenizerModule
from common.models.loading import load_codes
from common.reward_terms import RewardTerms
from common.schema import GroupBatch
from common.seeding import derive_seed
from common.token_distribution import TokenDistribution
from learner.advantage import advantages, flat_groups, reward_spread
from learner.beside_decoder import Beside
from learner.code_prices import CodePrices, code_prices
from learner.decoder_training import DecoderTraining
from learner.embedding_regulariser import embedding_regulariser
from learner.loss import ce_prior, frozen_reference, kl_prior, kl_to_behaviour, surrogate_loss
from learner.optimizer import Arrays, build_optimizer, load_optimizer_arrays, optimizer_arrays
from learner.recorded_credit import require_credit
from learner.rows import Rows, tensor_of
from learner.step_sums import StepSums, numbers
from learner.straight_through import StraightThrough
from learner.token_logprobs import TokenLogprobs, token_logprobs

PUBLISHED_DROPOUT = 0.1  # on tokens, attention and feed-forward outputs in the released scripts' learner


class Trainer:
    """What is trained (`load_trained`), its optimizer, and the optimizer step."""

    def __init__(self, model: PolicyModule | TokenizerModule, recipe: Recipe, device: torch.device):
        self.model = model.eval()  # no dropout, in learning as in sampling
        self._policy = policy = cast(PolicyModule, model)  # unless the decoder is trained, which asks for none
        self._reference = frozen_reference(policy, recipe.learner)
        self._recipes = {kind: recipe.of_kind(kind) for kind in recipe.rollout.shares}
        self._is_published = recipe.profile == "published" and "teacher_forced" in self._recipes
        if self._is_published:
            turn_on_dropout(model, PUBLISHED_DROPOUT)
        self._regulariser = embedding_regulariser(policy, recipe, device)
        self.optimizer = build_optimizer(model, recipe.learner, self._regulariser)
        self.step = 0
        self._recipe = recipe
        self._distribution = TokenDistribution.of(recipe.group)
        self._device = device
        self._codes_VD = load_codes(recipe, device) if recipe.has_code_gradients else None
        methods = {"ste": StraightThrough, "decoder": DecoderTraining}
        method: Any = methods.get(recipe.learner.method)
        self._method = None if method is None else method(model, recipe, device)
        self._beside: tuple[Beside, ...] = getattr(self._method, "beside", ())

    def train(
        self,
        groups: GroupBatch | Sequence[GroupBatch],
        clock: StageClock,
        *,
        forward: nn.Module | None = None,
        num_groups: int | None = None,
        num_ranks: int = 1,
        no_sync: Callable[[], AbstractContextManager] = nullcontext,
        rank: int = 0,
        over_ranks: Callable[[Tensor], Tensor] = lambda total: total,
    ) -> tuple[StepSums, float]:
        """Learn from `groups`, a batch per kind; returns this rank's sums and the gradient norm before clipping.

        Under DDP, `forward` is the wrapped model, `no_sync` its context manager, `num_groups` counts the groups
        of all ranks, and `over_ranks` adds up a tensor over them. A non-finite norm skips the update, but the step
        still counts; it is the norm of the averaged gradient, so all ranks skip together.
        """
        learner = self._recipe.learner
        kinds = [groups] if isinstance(groups, GroupBatch) else groups
        for each in kinds:
            require_credit(each, self._recipes[each.rollout])
        scale = num_ranks / (num_groups or sum(map(len, kinds)))  # DDP averages gradients over ranks
        sound = [quarantine(each) for each in kinds]
        prices = self._prices(sound, over_ranks)
        sums = StepSums()
        if self._is_published:  # a resumed run drops the same as an uninterrupted one
            torch.manual_seed(derive_seed(self._recipe.seed, "dropout", self.step, rank))
        micros = [
            (kind, slice(start, start + learner.micro_batch_size))
            for kind, each in enumerate(kinds)
            for start in range(0, len(each), learner.micro_batch_size)
        ]
        self.optimizer.zero_grad(set_to_none=True)
        with clock("forward_backward"):
            for kind, rows in micros:
                with nullcontext() if (kind, rows) == micros[-1] else no_sync():
                    loss, micro = self._loss(*sound[kind], rows, prices[kind], forward or self.model)
                    (loss * scale).backward()
                sums += micro
        with clock("optimizer"):
            trained = list(self.model.parameters())
            if self._regulariser is not None:  # outside DDP
                trained += self._regulariser.parameters()
                self._regulariser.average_gradients(over_ranks, num_ranks)
            norm = float(nn.utils.clip_grad_norm_(trained, learner.max_grad_norm))
            if math.isfinite(norm):
                self.optimizer.step()
                for beside in self._beside:
                    beside.update(over_ranks, num_ranks)
        self.step += 1
        return sums, norm

    def optimizer_arrays(self) -> Arrays:
        """AdamW's state, and what is trained beside the model: all that a resume needs besides its weights."""
        arrays = dict(optimizer_arrays(self.optimizer, self.model))
        for each in self._beside:
            arrays |= each.state()
        return arrays if self._regulariser is None else {**arrays, **self._regulariser.state(self.optimizer)}

    def load_optimizer_arrays(self, arrays: Arrays) -> None:
        """Restore the state returned by `optimizer_arrays`."""
        for each in self._beside:
            arrays = each.take(arrays)
        if self._regulariser is not None:
            arrays = self._regulariser.take(self.optimizer, arrays)
        load_optimizer_arrays(self.optimizer, self.model, arrays)

    def _prices(
        self, batches: Sequence[tuple[GroupBatch, np.ndarray]], over_ranks: Callable[[Tensor], Tensor]
    ) -> list[CodePrices | None]:
        """Of each batch; None without credit by gradient."""
        if self._codes_VD is None:
            return [None] * len(batches)
        if self._recipe.advantage.scale == "global" and not any(groups.credit for groups, _ in batches):
            over_ranks(torch.zeros(2, dtype=torch.float64, device=self._device))  # the other ranks wait for all
        return [
            code_prices(
                CodeCredit.of(self._tensors(groups.credit, slice(None))),
                self._codes_VD,
                self._recipe,
                self._tensor(weights_B),
                over_ranks,
            )
            if groups.credit
            else None
            for groups, weights_B in batches
        ]

    def _loss(
        self,
        groups: GroupBatch,
        weights_B: np.ndarray,
        micro: slice,
        prices: CodePrices | None,
        forward: nn.Module,
    ) -> tuple[Tensor, StepSums]:
        """The weighted loss summed over the groups in `micro`, and the sums to report."""
        if self._method is not None:
            return self._method.loss(groups, weights_B, micro, forward)
        recipe, learner = self._recipes[groups.rollout], self._recipe.learner
        terms = RewardTerms(
            (len(groups.behaviour_logprobs_BGT[micro]), groups.group_size),
            self._tensors(groups.reward_terms, micro),
            self._tensors(groups.reward_maps, micro),
            groups.higher_is_better,
            missed={name: missed_BG.bool() for name, missed_BG in self._tensors(groups.missed, micro).items()},
        )
        dropped_BG = terms.dropped
        rewards_BG = terms.rewards(recipe.reward.weights).to(self._device)
        advantages_BG = advantages(terms, recipe)
        if advantages_BG is not None:
            advantages_BG = advantages_BG.to(self._device)
        micro_prices = None if prices is None else prices[micro]
        rows = Rows(
            condition=self._tensors(groups.condition, micro),
            context_NT=self._tensor(groups.context_tokens_BT[micro]).long(),
            targets_NT=self._tensor(groups.target_tokens_BT[micro]).long(),
            samples_NKT=self._tensor(groups.sampled_tokens_BGT[micro]).long(),
            behaviour_logprobs_NKT=self._tensor(groups.behaviour_logprobs_BGT[micro]),
            advantages_NKT=advantages_BG,
            prices=micro_prices,
        )
        runs_free = groups.rollout == "free_running"
        if runs_free:
            rows = rows.with_own_contexts()
        elif self._is_published:
            rows = rows.repeated()
            dropped_N = torch.rand(len(rows)) < recipe.context.condition_drop
            rows = rows.without_conditions(self._policy, dropped_N)
        scale = recipe.learned_guidance_scale if runs_free else 1.0
        with self._regulariser.watching() if self._regulariser is not None else nullcontext():
            logprobs = self._logprobs(GuidedPolicy(self._policy, scale, forward), rows)
        policy_N, ratio_NKT = surrogate_loss(
            logprobs.samples_BGT, rows.behaviour_logprobs_NKT, rows.advantages_NKT, learner
        )
        if logprobs.advantage_BT is not None:
            policy_N = policy_N - logprobs.advantage_BT.mean(dim=1)
        weights_N = self._tensor(weights_B[micro]).repeat_interleave(len(rows) // len(rewards_BG))
        policy_N = policy_N * weights_N
        ce_N, kl_prior_N = self._priors(logprobs, rows, scale)
        ce_N = torch.zeros_like(ce_N) if runs_free else ce_N  # without an image there are no codes of one
        ce_N, kl_prior_N = ce_N * weights_N, kl_prior_N * weights_N
        loss_N = policy_N + learner.ce_weight * (ce_N if learner.prior == "ce" else kl_prior_N)
        if self._regulariser is not None:
            with autocast(recipe.compute, self._device):
                loss_N = loss_N + learner.embedding_weight * self._regulariser(rows.targets_NT) * weights_N
        clipped_NKT = (ratio_NKT.detach() - 1).abs() > learner.clip_range
        kl_N = kl_to_behaviour(logprobs.samples_BGT, rows.behaviour_logprobs_NKT)
        groups_per_row = len(rewards_BG) / len(rows)
        num_sound = int(weights_B[micro].sum())
        is_sound_B = self._tensor(weights_B[micro]) > 0
        is_flat_B = flat_groups(advantages_BG, micro_prices)

        def total(value_N: Tensor) -> Tensor:
            return value_N.detach().sum() * groups_per_row

        sums = {
            "loss": total(loss_N),
            "policy_loss": total(policy_N),
            "ce_prior": total(ce_N),
            "kl_prior": total(kl_prior_N),
            "reward_mean": rewards_BG.mean(dim=1).sum(),
            "reward_std": reward_spread(rewards_BG).sum(),
            "clip_fraction": total(clipped_NKT.float().mean(dim=(1, 2)) * weights_N),
            "kl": total(kl_N * weights_N),
            "entropy": total(logprobs.entropy_BT.mean(dim=1) * weights_N),
        }
        term_sums = {name: term_BG.mean(dim=1).sum() for name, term_BG in terms.terms.items()}
        num_flat, *means = numbers([(is_flat_B & is_sound_B).sum(), *sums.values(), *term_sums.values()])
        return loss_N.sum() * groups_per_row, StepSums(
            num_groups=num_sound,
            num_quarantined=len(rewards_BG) - num_sound,
            num_flat=int(num_flat) if recipe.reward.weights else 0,
            num_dropped=0 if dropped_BG is None else int(dropped_BG[is_sound_B].sum()),
            sums=dict(zip(sums, means, strict=False)),
            reward_terms=dict(zip(term_sums, means[len(sums) :], strict=True)),
            better=terms.better(recipe.reward.own_terms),
            num_measured=dict.fromkeys(term_sums, num_sound) | {"ce_prior": 0 if runs_free else num_sound},
        )

    def _logprobs(self, policy: GuidedPolicy, rows: Rows) -> TokenLogprobs:
        with autocast(self._recipe.compute, self._device):
            return token_logprobs(
                policy.logits,
                policy.hidden(rows.condition, rows.context_NT),
                rows.samples_NKT,
                rows.targets_NT,
                self._distribution,
                self._recipe.learner.logit_rows,
                rows.prices,
            )

    def _priors(self, logprobs: TokenLogprobs, rows: Rows, scale: float) -> tuple[Tensor, Tensor]:
        """Each row's cross-entropy, and its KL from the reference, 0 without a reference."""
        ce_N = ce_prior(logprobs.targets_BT)
        if self._reference is None:
            return ce_N, torch.zeros_like(ce_N)
        with torch.no_grad():
            unpriced = replace(rows, prices=None)
            reference = self._logprobs(GuidedPolicy(self._reference, scale, self._reference), unpriced)
        return ce_N, kl_prior(logprobs.samples_BGT, reference.samples_BGT)

    def _tensors(self, columns: Mapping[str, np.ndarray], micro: slice) -> dict[str, Tensor]:
        return {name: self._tensor(column[micro]) for name, column in columns.items()}

    def _tensor(self, array: np.ndarray) -> Tensor:
        return tensor_of(array, self._device)


def turn_on_dropout(policy: nn.Module, rate: float) -> None:
    """Enable dropout at `rate` in all of the model's dropout layers; the rest stays in eval mode."""
    for module in policy.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate
            module.train()
