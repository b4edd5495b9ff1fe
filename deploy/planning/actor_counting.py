"""The arithmetic and memory of a reward actor, counted on fake tensors by the code that a run uses.

Letters: B images of a ticket, G samples per group, N pictures, T image tokens, V codebook entries, D width of
hidden states.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch

from actors.code_credit import code_credit
from actors.group_sampling import sample_groups
from actors.rewards.build import reward_of
from actors.rewards.decoded_reward import DecodedReward
from actors.rewards.table import build_terms
from actors.rewards.term import Sources
from actors.rollouts.free_running import own_logprobs
from common.config.recipe import Recipe
from common.guidance import GuidedPolicy, guidance_scales
from common.machine import autocast
from common.token_distribution import TokenDistribution
from deploy.planning.judges import CLASSIFY
from deploy.planning.untrained_models import UntrainedModels, condition, pixels, size_bytes, tokens
from deploy.planning.work_meter import WorkMeter

CPU = torch.device("cpu")  # the device that fake tensors report


@dataclass(frozen=True)
class ActorWork:
    """A reward actor's work: FLOPs of one source image and its G samples, and each stage's `peak_bytes`."""

    encode: int
    policy: int  # one forward, without the head; of free-running samples their log-probabilities, in whole
    head: int  # the logits to draw the samples from
    decode: int  # G pictures
    perceptual: int  # G samples and one reference
    peak_bytes: dict[str, int]
    gradient: int = 0  # under credit by gradient: the way back to the codes, through both
    price: int = 0  # likewise: the logits again, and what the entries are worth
    judge: int = 0  # G pictures and a prompt through each CLIP, unless judge actors do that
    classifier: int = 0  # G pictures through it, likewise
    draw: int = 0  # the tokens of G free-running samples
    draw_bytes: int = 0  # weights and caches read for them, which takes longer than their arithmetic

    @property
    def flops(self) -> int:
        scored = self.decode + self.perceptual + self.judge + self.classifier + self.gradient + self.price
        return self.encode + self.draw + self.policy + self.head + scored

    @classmethod
    def mean(cls, works: Sequence[Self], shares: Sequence[float]) -> Self:
        """Of images of several kinds, by their shares; of each stage the largest."""
        if len(works) == 1:
            return works[0]
        peaks: dict[str, int] = {}
        for work in works:
            peaks |= {stage: max(size, peaks.get(stage, 0)) for stage, size in work.peak_bytes.items()}
        return cls(**mean_of(works, shares, leave=("peak_bytes",)), peak_bytes=peaks)


def mean_of(works: Sequence, shares: Sequence[float], leave: Collection[str]) -> dict[str, int]:
    """The weighted mean of the whole numbers in dataclasses of one kind: of all fields but those to `leave`."""
    pairs = list(zip(works, shares, strict=True))
    names = [field.name for field in fields(works[0]) if field.name not in leave]
    return {name: round(sum(getattr(work, name) * share for work, share in pairs)) for name in names}


@torch.no_grad()
def actor_work(recipe: Recipe, models: UntrainedModels) -> ActorWork:
    """Follows `RolloutPipeline.roll_out`, of groups of one kind; the reward, of which a ticket may take several
    chunks, for one chunk, or for one piece of it under credit by gradient.
    """
    if recipe.rollout.kind == "free_running":
        return _free_running(recipe, models)
    B, G, T = recipe.actors.images_per_ticket, recipe.num_samples_drawn, recipe.num_tokens
    distribution = TokenDistribution.of(recipe.group)
    num_scored = max(1, recipe.pictures_scored_at_once // recipe.group.size)
    with WorkMeter() as meter:
        pixels_BCHW = pixels(recipe, B)
        with meter("encode"):
            models.tokenizer.encode(pixels_BCHW)
        if G:  # under learner.method ste the learner has the policy's only pass
            with meter("policy"), autocast(recipe.compute, CPU):
                hidden_BTD = models.policy(condition(recipe, B), tokens(B, T - 1), head=False)
            with meter("sample"), autocast(recipe.compute, CPU):
                sample_groups(models.policy.logits, hidden_BTD[:1], G, distribution, [torch.Generator()])
        if not recipe.is_scored_in_learner:
            sources = Sources(pixels_BCHW[:num_scored], condition(recipe, num_scored), ("",) * num_scored)
            reward = _reward(recipe, models)
            gradient_BTD = reward.measure(tokens(num_scored, G, T), sources, meter).gradient_BTD
            if gradient_BTD is not None:
                with meter("price"), autocast(recipe.compute, CPU):
                    one = hidden_BTD[:1], tokens(1, G, T), gradient_BTD[:1]
                    code_credit(models.policy.logits, *one, models.tokenizer, distribution)
    flops = meter.flops
    return ActorWork(
        encode=flops["encode"] // B,
        policy=flops["policy"] // B,
        head=flops["sample"],
        decode=flops["decode"] // num_scored,
        perceptual=flops["perceptual"] // num_scored,
        peak_bytes=_peaks(meter),
        gradient=flops["gradient"] // num_scored,
        price=flops["price"],
        judge=flops["score"] // num_scored,
        classifier=flops[CLASSIFY] // num_scored,
    )


def _free_running(recipe: Recipe, models: UntrainedModels) -> ActorWork:
    """Follows `FreeRunning.draw`. Of the tokens one by one two are run, of the log-probabilities one image's."""
    B, G, T = recipe.actors.images_per_ticket, recipe.group.size, recipe.num_tokens
    distribution, num_scored = TokenDistribution.of(recipe.group), recipe.groups_scored_at_once
    rows = 1 if recipe.rollout.guidance_scale == 1 else 2
    guided = GuidedPolicy(models.policy, recipe.learned_guidance_scale, models.policy)
    reward = _reward(recipe, models)
    with autocast(recipe.compute, CPU):
        peak, cache = drawing_peak(recipe, models, B * G, rows, distribution)
    with WorkMeter() as meter:
        with meter("policy"), autocast(recipe.compute, CPU):
            guided.hidden(condition(recipe, B * G), tokens(B * G, T - 1))
        with meter("one sample"), autocast(recipe.compute, CPU):
            own_logprobs(guided, condition(recipe, 1), tokens(1, 1, T), distribution)
        no_pixels_BCHW = pixels(recipe, num_scored)[:, :, :0, :0]
        sources = Sources(no_pixels_BCHW, condition(recipe, num_scored), ("",) * num_scored)
        reward.measure(tokens(num_scored, G, T), sources, meter)
    flops, peaks = meter.flops, _peaks(meter)
    del peaks["one sample"]
    return ActorWork(
        encode=0,
        policy=G * flops["one sample"],
        head=0,
        decode=flops["decode"] // num_scored,
        perceptual=0,
        peak_bytes=peaks | {"sample": peak},
        judge=flops["score"] // num_scored,
        classifier=flops[CLASSIFY] // num_scored,
        draw=G * _tokens_one_by_one(recipe, models, rows),
        draw_bytes=T * (_read_bytes(recipe, models) // B + (cache if recipe.compute.compile else cache // 2) // B),
    )


def _reward(recipe: Recipe, models: UntrainedModels) -> DecodedReward:
    """As `rewards_of`: it measures all terms, or hands the pictures over for judge actors."""
    compared = build_terms(recipe.reward.comparing(), models.perceptual)
    is_apart = bool(recipe.reward.actors.count and recipe.reward.judged_weights)
    terms = compared if is_apart else compared | models.judges.terms(recipe)
    return reward_of(recipe.reward, models.tokenizer, terms, recipe.advantage.credit, hands_over=is_apart)


def _peaks(meter: WorkMeter) -> dict[str, int]:
    """By the stages of a run."""
    peaks = dict(meter.peak_bytes)
    if CLASSIFY in peaks:
        peaks["score"] = max(peaks.pop(CLASSIFY), peaks.get("score", 0))
    return peaks


def _read_bytes(recipe: Recipe, models: UntrainedModels) -> int:
    """Of the weights, as autocast uses them, which each token reads for all pictures at once."""
    halves = recipe.compute.autocast == "bfloat16" and not (recipe.has_narrow_weights and recipe.learner.lora)
    return size_bytes(models.policy) // (2 if halves else 1)


@torch.no_grad()
def drawing_peak(
    recipe: Recipe, models: UntrainedModels, num_pictures: int, rows: int, distribution: TokenDistribution
) -> tuple[int, int]:
    """The most bytes alive for one token, casts of weights among them, and those of the whole cache."""
    with WorkMeter() as meter:
        with meter("draw"):
            decoder = models.policy.start_decoding(condition(recipe, num_pictures * rows))
            logits_NV = decoder.next_logits(None)[:num_pictures]
            distribution.draw(logits_NV, torch.zeros(num_pictures, 1, dtype=torch.float64))
        peak, alive = meter.peak_bytes["draw"], meter.live_bytes
        del decoder
        cache = alive - meter.live_bytes
    return peak, cache


def sampling_rows(recipe: Recipe) -> int:
    """Rows that `sample` decodes for a picture: two under guidance."""
    return 2 if any(scale != 1 for scale in guidance_scales(recipe.sampling, recipe.num_tokens)) else 1


def drawing_work(recipe: Recipe, models: UntrainedModels) -> int:
    """FLOPs of a picture's tokens, by `sample`."""
    return _tokens_one_by_one(recipe, models, sampling_rows(recipe))


@torch.no_grad()
def _tokens_one_by_one(recipe: Recipe, models: UntrainedModels, num_rows: int) -> int:
    """The condition and two tokens are run; each later token attends to one position more, and costs that more."""
    with WorkMeter() as meter:
        decoder = models.policy.start_decoding(condition(recipe, num_rows))
        for stage in ("condition", "token", "next token"):
            with meter(stage):
                decoder.next_logits(None if stage == "condition" else tokens(num_rows))
    flops, num_steps = meter.flops, recipe.num_tokens - 1
    more = flops["next token"] - flops["token"]
    return flops["condition"] + num_steps * flops["token"] + more * (num_steps * (num_steps - 1) // 2)
