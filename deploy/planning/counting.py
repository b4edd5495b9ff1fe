"""The arithmetic and memory of the recipe's models, counted on fake tensors by the code that the run uses.

Letters: B images of a ticket, G samples per group, T image tokens, D width of hidden states.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from actors.code_credit import code_credit
from actors.evaluation.free_running import guidance_scales
from actors.group_sampling import sample_groups
from actors.rewards.build import reward_of
from actors.rewards.own_term import OwnTerm
from actors.rewards.table import build_terms
from actors.rewards.term import Sources
from common.code_credit import CodeCredit, codebook_codes
from common.config.algorithm import GroupSection
from common.config.recipe import Recipe
from common.errors import RecipeError
from common.machine import autocast
from common.models.lora import trained_tensors
from common.token_distribution import TokenDistribution
from deploy.planning.untrained_models import UntrainedModels, condition, pixels, size_bytes, tokens
from deploy.planning.work_meter import WorkMeter
from learner.code_prices import CodePrices, code_prices
from learner.token_logprobs import token_logprobs

_CPU = torch.device("cpu")  # the device that fake tensors report


@dataclass(frozen=True)
class ActorWork:
    """A reward actor's work: FLOPs of one source image and its G samples, and each stage's `peak_bytes`."""

    encode: int
    policy: int  # one forward, without the head
    head: int  # the logits to draw the samples from
    decode: int  # G pictures
    perceptual: int  # G samples and one reference
    peak_bytes: dict[str, int]
    gradient: int = 0  # under credit by gradient: the way back to the codes, through both
    price: int = 0  # likewise: the logits again, and what the entries are worth


@dataclass(frozen=True)
class MicroBatchBytes:
    """Memory of a micro-batch in a learner rank, besides weights, gradients and optimizer state."""

    kept: int  # activations for the backward pass
    on_top: int  # at the worst moment: casts of the weights, logits of some rows, or a recomputed block


@dataclass(frozen=True)
class LearnerWork:
    """A learner rank's work: FLOPs of one image, bytes of one micro-batch."""

    forward: int
    backward: int
    recomputed: int  # forward work repeated in the backward pass
    plain_bytes: MicroBatchBytes  # without compute.activation_checkpointing
    checkpointed_bytes: MicroBatchBytes  # with it


@dataclass(frozen=True)
class Work:
    actor: ActorWork
    learner: LearnerWork
    num_parameters: int  # of the policy
    policy_bytes: int
    frozen_bytes: int  # of tokenizer and perceptual metric
    drawn_bytes: int  # of one free-running picture, while its tokens are drawn
    num_trained: int  # of the policy's parameters: all, or the adapters'
    trained_bytes: int  # of the policy's
    drawing: int  # FLOPs of a free-running picture's tokens, of two rows where sampling is guided


def count_work(recipe: Recipe) -> Work:
    """RecipeError for what it cannot count."""
    if "free_running" in recipe.rollout.shares:
        raise RecipeError(
            "plan counts teacher-forced groups, and rollout has free-running ones, whose samples take a pass of "
            "the policy for each token: time a short run instead"
        )
    with FakeTensorMode():
        models = UntrainedModels.of(recipe)
        actor = actor_work(recipe, models)
        trained = list(trained_tensors(models.policy).values())
        return Work(
            actor=actor,
            learner=learner_work(recipe, models, actor),
            num_parameters=sum(parameter.numel() for parameter in models.policy.parameters()),
            policy_bytes=size_bytes(models.policy),
            frozen_bytes=size_bytes(models.tokenizer) + size_bytes(models.perceptual),
            drawn_bytes=_drawing_peak(recipe, models, 2) - _drawing_peak(recipe, models, 1),
            num_trained=sum(p.numel() for p in models.policy.parameters() if p.requires_grad),
            trained_bytes=sum(tensor.nbytes for tensor in trained),
            drawing=drawing_work(recipe, models),
        )


@torch.no_grad()
def _drawing_peak(recipe: Recipe, models: UntrainedModels, num_pictures: int) -> int:
    """Follows `sample_tokens` for one token: the cache is whole from the first on. Has casts of weights, too."""
    sampling = recipe.sampling
    is_guided = any(scale != 1 for scale in guidance_scales(sampling, recipe.num_tokens))
    drawing = torch.autocast("cpu", torch.bfloat16, enabled=sampling.autocast == "bfloat16")
    with WorkMeter() as meter, meter("draw"), drawing:
        decoder = models.policy.start_decoding(condition(recipe, num_pictures * (1 + is_guided)))
        logits_NV = decoder.next_logits(None)[:num_pictures]
        uniforms_N1 = torch.zeros(num_pictures, 1, dtype=torch.float64)
        TokenDistribution.of(sampling).draw(logits_NV, uniforms_N1)
    return meter.peak_bytes["draw"]


@torch.no_grad()
def actor_work(recipe: Recipe, models: UntrainedModels) -> ActorWork:
    """Follows `RolloutPipeline.roll_out`; the reward, of which a ticket may take several chunks, for one chunk, or
    for one piece of it under credit by gradient.

    Judges and the user's own terms take nothing here: their code knows no fake tensors, or their size is that of a
    file.
    """
    B, G, T = recipe.actors.images_per_ticket, recipe.group.size, recipe.num_tokens
    distribution = TokenDistribution.of(recipe.group)
    num_scored = max(1, recipe.pictures_scored_at_once // G)
    known = recipe.reward.comparing()
    judges = [name for name in recipe.reward.weights if name not in known.weights]
    own = dict.fromkeys(judges, OwnTerm(_no_work, higher_is_better=False))
    terms = build_terms(known, models.perceptual) | own
    reward = reward_of(recipe.reward, models.tokenizer, terms, recipe.advantage.credit)
    with WorkMeter() as meter:
        pixels_BCHW = pixels(recipe, B)
        with meter("encode"):
            models.tokenizer.encode(pixels_BCHW)
        with meter("policy"), autocast(recipe.compute, _CPU):
            hidden_BTD = models.policy(condition(recipe, B), tokens(B, T - 1), head=False)
        with meter("sample"), autocast(recipe.compute, _CPU):
            sample_groups(models.policy.logits, hidden_BTD[:1], G, distribution, [torch.Generator()])
        sources = Sources(pixels_BCHW[:num_scored], {}, ("",) * num_scored)
        gradient_BTD = reward.measure(tokens(num_scored, G, T), sources, meter).gradient_BTD
        if gradient_BTD is not None:
            with meter("price"), autocast(recipe.compute, _CPU):
                one = hidden_BTD[:1], tokens(1, G, T), gradient_BTD[:1]
                code_credit(models.policy.logits, *one, models.tokenizer, distribution)
    flops = meter.flops
    return ActorWork(
        encode=flops["encode"] // B,
        policy=flops["policy"] // B,
        head=flops["sample"],
        decode=flops["decode"] // num_scored,
        perceptual=flops["perceptual"] // num_scored,
        peak_bytes=dict(meter.peak_bytes),
        gradient=flops["gradient"] // num_scored,
        price=flops["price"],
    )


@torch.no_grad()
def drawing_work(recipe: Recipe, models: UntrainedModels) -> int:
    """The condition and two tokens are run; each later token attends to one position more, and costs that more."""
    num_rows = 2 if any(scale != 1 for scale in guidance_scales(recipe.sampling, recipe.num_tokens)) else 1
    with WorkMeter() as meter:
        decoder = models.policy.start_decoding(condition(recipe, num_rows))
        for stage in ("condition", "token", "next token"):
            with meter(stage):
                decoder.next_logits(None if stage == "condition" else tokens(num_rows))
    flops, num_steps = meter.flops, recipe.num_tokens - 1
    more = flops["next token"] - flops["token"]
    return flops["condition"] + num_steps * flops["token"] + more * (num_steps * (num_steps - 1) // 2)


def _no_work(decoded_BGCHW: Tensor, _: Sources) -> Tensor:
    return decoded_BGCHW.new_zeros(decoded_BGCHW.shape[:2])


def learner_work(recipe: Recipe, models: UntrainedModels, actor: ActorWork) -> LearnerWork:
    """A product's backward pass is two products: it is counted as twice the forward, not run.

    Beside adapters the weights take no gradient, which leaves about one; there it is counted on the way back.
    """
    rows_a_group = recipe.group.size if recipe.profile == "published" else 1
    num_rows = recipe.learner.micro_batch_size * rows_a_group
    num_policies = 2 if recipe.learner.prior == "kl" else 1  # includes the reference's forward
    plain = _micro_batch(recipe, models, num_rows, checkpointing=False)
    checkpointed = _micro_batch(recipe, models, num_rows, checkpointing=True)
    block_bytes = (plain.kept - checkpointed.kept) // models.policy.num_blocks
    backward = 2 * (actor.policy + actor.head)
    if recipe.learner.lora is not None:
        backward = _backward_beside_adapters(recipe, models) + actor.head
    head_backward = actor.head if recipe.learner.lora is not None else 2 * actor.head
    logits_again = plain.head_flops // num_rows - actor.head - head_backward
    # The condition's embedder counts as a block here; a caption's embedder is two thousandths of the total.
    blocks_again = actor.policy if recipe.compute.activation_checkpointing else 0
    return LearnerWork(
        forward=num_policies * rows_a_group * (actor.policy + actor.head),
        backward=rows_a_group * backward,
        recomputed=rows_a_group * (logits_again + blocks_again),
        plain_bytes=MicroBatchBytes(plain.kept, plain.on_top),
        checkpointed_bytes=MicroBatchBytes(checkpointed.kept, max(checkpointed.on_top, block_bytes)),
    )


def _backward_beside_adapters(recipe: Recipe, models: UntrainedModels) -> int:
    """FLOPs of the way back from the hidden states of one row."""
    models.policy.activation_checkpointing = False
    with WorkMeter() as meter:
        with autocast(recipe.compute, _CPU):
            hidden_NTD = models.policy(condition(recipe, 1), tokens(1, recipe.num_tokens - 1), head=False)
        with meter("backward"):
            hidden_NTD.float().sum().backward()
        models.policy.zero_grad(set_to_none=True)
    return meter.flops["backward"]


@dataclass(frozen=True)
class PublishedWork:
    """FLOPs of one source image and its G samples in the released VA-π scripts.

    They take one row per sample, and the metric's features G times.
    """

    encode: int
    policy: int  # once, as here: the behaviour pass is not repeated
    head: int
    decode: int
    perceptual: int  # the source image's features once per sample
    forward: int  # one row per sample
    backward: int
    idle_kl: int  # a reference model's forward per row, run but not used by the class-conditional script


def published_work(actor: ActorWork, recipe: Recipe) -> PublishedWork:
    own_size, group_size = recipe.group.size, published_group_size(recipe)
    row = actor.policy + actor.head
    return PublishedWork(
        encode=actor.encode,
        policy=actor.policy,
        head=actor.head,
        decode=actor.decode * group_size // own_size,
        perceptual=actor.perceptual * 2 * group_size // (own_size + 1),
        forward=group_size * row,
        backward=group_size * 2 * row,
        idle_kl=group_size * row,
    )


def published_group_size(recipe: Recipe) -> int:
    """The recipe's samples a group; the paper's where credit by gradient needs fewer."""
    return GroupSection().size if recipe.has_code_gradients else recipe.group.size


@dataclass(frozen=True)
class _MicroBatch:
    kept: int
    on_top: int
    head_flops: int  # forward and backward of the head, with logits computed twice


def _micro_batch(recipe: Recipe, models: UntrainedModels, num_rows: int, *, checkpointing: bool) -> _MicroBatch:
    """Follows `Trainer`, up to the head's backward pass."""
    N, T, policy = num_rows, recipe.num_tokens, models.policy
    num_samples = 1 if recipe.profile == "published" else recipe.num_samples_kept
    policy.activation_checkpointing = checkpointing
    with WorkMeter() as meter:
        with autocast(recipe.compute, _CPU):
            hidden_NTD = policy(condition(recipe, N), tokens(N, T - 1), head=False)
        kept, forward_peak = meter.live_bytes, meter.last_peak_bytes
        leaf_NTD = hidden_NTD.detach().requires_grad_()
        with meter("head"):
            with autocast(recipe.compute, _CPU):
                logprobs = token_logprobs(
                    policy.logits,
                    leaf_NTD,
                    tokens(N, num_samples, T),
                    tokens(N, T),
                    TokenDistribution.of(recipe.group),
                    recipe.learner.logit_rows,
                    _prices(recipe, models, N),
                )
            loss = logprobs.samples_BGT.mean() + logprobs.targets_BT.mean()
            (loss if logprobs.advantage_BT is None else loss + logprobs.advantage_BT.mean()).backward()
        policy.zero_grad(set_to_none=True)
    peak = max(forward_peak, meter.peak_bytes["head"])
    return _MicroBatch(kept, peak - kept, meter.flops["head"])


def _prices(recipe: Recipe, models: UntrainedModels, num_groups: int) -> CodePrices | None:
    if not recipe.has_code_gradients:
        return None
    codes_VD = codebook_codes(models.tokenizer, _CPU)
    spread_BT = torch.zeros(num_groups, recipe.num_tokens)
    slope_BTD = spread_BT[:, :, None].expand(-1, -1, codes_VD.shape[1])
    return code_prices(CodeCredit(slope_BTD, slope_BTD, spread_BT), codes_VD, recipe, torch.ones(num_groups))
