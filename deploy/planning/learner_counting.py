"""The arithmetic and memory of a learner rank, counted on fake tensors by the code that a run uses.

Letters: N rows, B groups, K samples per group, k with the image's own codes beside them, T image tokens, D width
of hidden states or of codes, V codebook entries, C, H, W of a picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from common.code_credit import CodeCredit, codebook_codes
from common.config.recipe import Recipe
from common.guidance import GuidedPolicy
from common.machine import autocast
from common.models.families import TokenizerModule
from common.token_distribution import TokenDistribution
from deploy.planning.actor_counting import CPU, mean_of
from deploy.planning.untrained_models import UntrainedModels, condition, pixels, tokens
from deploy.planning.work_meter import WorkMeter
from learner.beside_decoder import discriminator_losses
from learner.code_prices import CodePrices, code_prices
from learner.picture_loss import PictureLoss
from learner.straight_through import straight_through
from learner.token_logprobs import token_logprobs


@dataclass(frozen=True)
class MicroBatchBytes:
    """Memory of a micro-batch in a learner rank, besides weights, gradients and optimizer state."""

    kept: int  # activations for the backward pass
    on_top: int  # at the worst moment: casts of the weights, logits of some rows, or a recomputed block


@dataclass(frozen=True)
class LearnerWork:
    """A learner rank's work: FLOPs of one image, bytes of one micro-batch."""

    forward: int  # of the policy, and of a reference
    backward: int
    recomputed: int  # forward work repeated in the backward pass
    plain_bytes: MicroBatchBytes  # without compute.activation_checkpointing
    checkpointed_bytes: MicroBatchBytes  # with it
    decode: int = 0  # where the learner scores pictures: the decoder, there and back
    perceptual: int = 0  # likewise, the metric
    discriminator: int = 0  # likewise: of samples twice, and of the image, there and back

    @property
    def flops(self) -> int:
        of_pictures = self.decode + self.perceptual + self.discriminator
        return self.forward + self.backward + self.recomputed + of_pictures

    @classmethod
    def mean(cls, works: Sequence[Self], shares: Sequence[float]) -> Self:
        """Of images of several kinds, by their shares; of the bytes those of the kind that needs most."""
        if len(works) == 1:
            return works[0]
        return cls(
            plain_bytes=max((work.plain_bytes for work in works), key=_sum),
            checkpointed_bytes=max((work.checkpointed_bytes for work in works), key=_sum),
            **mean_of(works, shares, leave=("plain_bytes", "checkpointed_bytes")),
        )


def _sum(size: MicroBatchBytes) -> int:
    return size.kept + size.on_top


def learner_work(recipe: Recipe, models: UntrainedModels) -> LearnerWork:
    """Of groups of one kind. A product's backward pass is two products: where the policy is trained it is counted
    as twice the forward, not run.

    Beside adapters the weights take no gradient, which leaves about one; there it is counted on the way back.
    """
    if recipe.trains_decoder:
        return _decoder_work(recipe, models)
    rows_a_group = _rows_a_group(recipe)
    num_rows = recipe.learner.micro_batch_size * rows_a_group
    num_policies = 2 if recipe.learner.prior == "kl" else 1  # includes the reference's forward
    plain = _micro_batch(recipe, models, num_rows, checkpointing=False)
    checkpointed = _micro_batch(recipe, models, num_rows, checkpointing=True)
    block_bytes = (plain.kept - checkpointed.kept) // models.policy.num_blocks
    backward = 2 * (plain.policy + plain.head)
    if recipe.learner.lora is not None:
        backward = _backward_beside_adapters(recipe, models) + plain.head
    # The condition's embedder counts as a block here; a caption's embedder is two thousandths of the total.
    blocks_again = plain.policy if recipe.compute.activation_checkpointing else 0
    return LearnerWork(
        forward=num_policies * rows_a_group * (plain.policy + plain.head),
        backward=rows_a_group * backward,
        recomputed=rows_a_group * (plain.head_again + blocks_again),
        plain_bytes=MicroBatchBytes(plain.kept, plain.on_top),
        checkpointed_bytes=MicroBatchBytes(checkpointed.kept, max(checkpointed.on_top, block_bytes)),
        decode=plain.decode,
        perceptual=plain.perceptual,
    )


def _rows_a_group(recipe: Recipe) -> int:
    """A free-running sample is its own context, and under guidance has a second row without the condition."""
    if recipe.rollout.kind == "free_running":
        return recipe.group.size * (1 if recipe.learned_guidance_scale == 1 else 2)
    return recipe.group.size if recipe.profile == "published" and not recipe.is_scored_in_learner else 1


def _backward_beside_adapters(recipe: Recipe, models: UntrainedModels) -> int:
    """FLOPs of the way back from the hidden states of one row."""
    models.policy.activation_checkpointing = False
    with WorkMeter() as meter:
        with autocast(recipe.compute, CPU):
            hidden_NTD = models.policy(condition(recipe, 1), tokens(1, recipe.num_tokens - 1), head=False)
        with meter("backward"):
            hidden_NTD.float().sum().backward()
        models.policy.zero_grad(set_to_none=True)
    return meter.flops["backward"]


@dataclass(frozen=True)
class _MicroBatch:
    kept: int
    on_top: int
    policy: int  # FLOPs of a row's forward, without the head
    head: int
    head_again: int  # repeated in the backward pass
    decode: int = 0
    perceptual: int = 0


def _micro_batch(recipe: Recipe, models: UntrainedModels, num_rows: int, *, checkpointing: bool) -> _MicroBatch:
    """Follows `Trainer`, up to the head's backward pass."""
    policy, T = models.policy, recipe.num_tokens
    policy.activation_checkpointing = checkpointing
    is_free = recipe.rollout.kind == "free_running"
    scale = recipe.learned_guidance_scale if is_free else 1.0
    guided, N = GuidedPolicy(policy, scale, policy), num_rows // (1 if scale == 1 else 2)
    with WorkMeter() as meter:
        with autocast(recipe.compute, CPU), meter("policy"):
            hidden_NTD = guided.hidden(condition(recipe, N), tokens(N, T - 1))
        kept, forward_peak = meter.live_bytes, meter.peak_bytes["policy"]
        with torch.no_grad(), meter("logits"), autocast(recipe.compute, CPU):
            guided.logits(hidden_NTD.detach()[:1])
        leaf_NTD = hidden_NTD.detach().requires_grad_()
        if recipe.is_scored_in_learner:
            kept = _straight_through(recipe, models, leaf_NTD, meter)
        else:
            with meter("head"):
                _logprobs(recipe, models, guided, leaf_NTD)
        policy.zero_grad(set_to_none=True)
    flops = meter.flops
    head = flops["logits"] * N // num_rows
    head_backward = head if recipe.learner.lora is not None else 2 * head
    stages = ("head", "decode", "perceptual")
    peak = max(forward_peak, *(meter.peak_bytes[stage] for stage in stages))
    return _MicroBatch(
        kept,
        peak - kept,
        flops["policy"] // num_rows,
        head,
        flops["head"] // num_rows - head - head_backward,
        flops["decode"] // num_rows,
        flops["perceptual"] // num_rows,
    )


def _logprobs(recipe: Recipe, models: UntrainedModels, guided: GuidedPolicy, leaf_NTD: Tensor) -> None:
    N, T = len(leaf_NTD), recipe.num_tokens
    has_own_rows = recipe.profile == "published" or recipe.rollout.kind == "free_running"
    num_samples = 1 if has_own_rows else recipe.num_samples_kept
    with autocast(recipe.compute, CPU):
        logprobs = token_logprobs(
            guided.logits,
            leaf_NTD,
            tokens(N, num_samples, T),
            tokens(N, T),
            TokenDistribution.of(recipe.group),
            recipe.learner.logit_rows,
            _prices(recipe, models, N),
        )
    loss = logprobs.samples_BGT.mean() + logprobs.targets_BT.mean()
    (loss if logprobs.advantage_BT is None else loss + logprobs.advantage_BT.mean()).backward()


def _prices(recipe: Recipe, models: UntrainedModels, num_groups: int) -> CodePrices | None:
    if not recipe.has_code_gradients or recipe.rollout.kind == "free_running":
        return None
    codes_VD = codebook_codes(models.tokenizer, CPU)
    spread_BT = torch.zeros(num_groups, recipe.num_tokens)
    slope_BTD = spread_BT[:, :, None].expand(-1, -1, codes_VD.shape[1])
    return code_prices(CodeCredit(slope_BTD, slope_BTD, spread_BT), codes_VD, recipe, torch.ones(num_groups))


def _straight_through(recipe: Recipe, models: UntrainedModels, leaf_NTD: Tensor, meter: WorkMeter) -> int:
    """Follows `StraightThrough.loss`, there and back; returns the bytes alive in between."""
    dtype, tokenizer = recipe.reward.decode_dtype, models.tokenizer
    codes_VD = codebook_codes(tokenizer, CPU)
    own = partial(straight_through, models.policy.logits, codes_VD, recipe.ste, torch.Generator)
    with meter("head"), autocast(recipe.compute, CPU):
        parts = [checkpoint(own, each_TD, tokens(recipe.num_tokens), use_reentrant=False) for each_TD in leaf_NTD]
        codes_NTD = torch.stack([codes_TD for codes_TD, *_ in parts])
    scorer = tokenizer if dtype == "float32" else tokenizer.for_scoring(getattr(torch, dtype))
    leaf_N1TD = codes_NTD.detach()[:, None].requires_grad_()
    kept = _pictures(recipe, models, scorer, leaf_N1TD, meter)
    assert leaf_N1TD.grad is not None
    with meter("head"):
        codes_NTD.backward(leaf_N1TD.grad[:, 0])
    return kept


def _decoder_work(recipe: Recipe, models: UntrainedModels) -> LearnerWork:
    """Follows `DecoderTraining.loss`; the policy stays with the actors."""
    B, tokenizer, section = recipe.learner.micro_batch_size, models.tokenizer, recipe.decoder
    tokenizer.train_decoder()
    with WorkMeter() as meter:
        codes_BkTD = tokenizer.codes(tokens(B, recipe.group.size + bool(section.clean_weight), recipe.num_tokens))
        kept = _pictures(recipe, models, tokenizer, codes_BkTD, meter)
        tokenizer.zero_grad(set_to_none=True)
    tokenizer.requires_grad_(False)
    peak = max(meter.peak_bytes.values())
    size = MicroBatchBytes(kept, peak - kept)
    flops = [meter.flops[stage] // B for stage in ("decode", "perceptual", "discriminator")]
    return LearnerWork(0, 0, 0, size, size, *flops)


def _pictures(
    recipe: Recipe, models: UntrainedModels, tokenizer: TokenizerModule, codes_BkTD: Tensor, meter: WorkMeter
) -> int:
    """The decoder and the terms of its pictures, there and back; returns the bytes alive in between."""
    B, k = codes_BkTD.shape[:2]
    K, section = k - bool(recipe.decoder.clean_weight), recipe.decoder
    losses = PictureLoss(recipe.reward.differentiable_weights, models.perceptual)
    side = recipe.grid_size

    def decoded(codes_BKTD: Tensor) -> Tensor:
        codes_NDhw = codes_BKTD.flatten(0, 1).mT.unflatten(2, (side, side))
        return tokenizer.decode_codes(codes_NDhw).float().unflatten(0, codes_BKTD.shape[:2])

    with meter("decode"):
        decoded_BkCHW = decoded(codes_BkTD)
    pixels_BCHW, leaf_BkCHW = pixels(recipe, B), decoded_BkCHW.detach().requires_grad_()
    with meter("perceptual"):
        terms = [losses.terms(leaf_BkCHW[:, :K], pixels_BCHW)]
        if section.clean_weight:
            terms.append(losses.terms(leaf_BkCHW[:, K:], pixels_BCHW))
    for _ in range(bool(section.anchor_weight) + bool(section.ema_weight)):
        with meter("decode"), torch.no_grad():
            other_NCHW = decoded(codes_BkTD[:, :K]).flatten(0, 1)
        with meter("perceptual"):
            terms.append(losses.terms(leaf_BkCHW[:, :K].flatten(0, 1)[:, None], other_NCHW))
    discriminator, discriminated = models.discriminator, []
    if discriminator is not None:
        with meter("discriminator"):
            both = discriminator_losses(discriminator, section.gan_weight, leaf_BkCHW[:, :K], pixels_BCHW)
            discriminated = [loss_B.sum() for loss_B in both]
    kept = meter.live_bytes
    with meter("perceptual"):
        torch.stack([losses.weighed(each).sum() for each in terms]).sum().backward()
    if discriminator is not None:
        with meter("discriminator"):
            torch.stack(discriminated).sum().backward()
        discriminator.zero_grad(set_to_none=True)
    with meter("decode"):
        decoded_BkCHW.backward(leaf_BkCHW.grad)
    return kept
