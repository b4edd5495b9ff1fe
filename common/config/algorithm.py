"""The algorithm's settings. Defaults are the paper's (arXiv 2512.19680)."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, Field, field_validator, model_validator

from common.config.base import Section
from common.config.lora import LoraSection
from common.config.methods import Method
from common.config.reward import HttpJudge, RewardActorsSection
from common.config.reward_models import PREFERENCES, Preference

Beta = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]


ContextKernel = Literal["uniform", "other", "self"]


class ContextSection(Section):
    """The teacher-forcing context."""

    noise: float = Field(default=0.0, ge=0, le=1)
    """ξ: the probability that a context token is replaced by another id, which kernel draws."""
    noise_schedule: Literal["constant", "linear", "rear"] = "constant"
    """constant: ξ is noise throughout. linear: it goes from noise in the first step to noise_end in the last, by
    the step that the image belongs to, not by who rolls it out or when. rear: noise · max(0, 1 - 4/3 t), t from 0
    in the first step to 1 in the last, so that the last quarter is clean (reAR, arXiv 2510.04450)."""
    noise_end: float = Field(default=0.0, ge=0, le=1)
    """For noise_schedule linear: ξ in the last of learner.num_steps."""
    noise_per_sequence: bool = False
    """Draw each image's own ξ uniformly between 0 and what noise and noise_schedule give, as reAR does."""
    kernel: ContextKernel = "uniform"
    """What replaces a token. uniform: any codebook id, with a small chance the same, as in the released scripts.
    other: any id but the token's own, as the paper has it. self: what the policy samples at that place given the
    clean context, at the temperature of group; it costs the actors one more forward."""
    condition_drop: float = Field(default=0.0, ge=0, lt=1)
    """The probability that a group's condition is dropped, so that guidance keeps working."""


class GroupSection(Section):
    """The samples of one source image."""

    size: int = Field(default=8, ge=1)
    """G: samples per group. 1 is for advantage.credit gradient alone: otherwise samples are compared."""
    temperature: float = Field(default=1.0, gt=0)
    """Softmax temperature of sampling; log-probabilities use the same temperature."""
    top_k: int = Field(default=0, ge=0)
    """Draw samples from this many most likely tokens at each position; 0: from all. Both sides of the ratio are
    probabilities within the most likely tokens of their own policy; a sampled token outside those of the learner's
    counts as kept, so that its ratio stays finite and it can be learned from."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """The same with the fewest most likely tokens whose probabilities add up to this; 1: all."""


class RewardSection(Section):
    """r = -(mse · MSE + lpips · LPIPS + l1 · L1) + clip · CLIP + …, images in [-1, 1].

    A term of weight 0 is not measured.
    """

    mse: float = Field(default=1.0, ge=0, validation_alias=AliasChoices("mse", "mse_weight"))
    """Weight of the mean squared error."""
    lpips: float = Field(default=1.0, ge=0, validation_alias=AliasChoices("lpips", "lpips_weight"))
    """Weight of the perceptual distance."""
    l1: float = Field(default=0.0, ge=0, validation_alias=AliasChoices("l1", "l1_weight"))
    """Weight of the mean absolute error."""
    classifier: float = Field(default=0.0, ge=0)
    """Weight of the log-probability of the group's class by a small classifier, as `pretrain` makes it."""
    classifier_checkpoint: str = ""
    """Weights of that classifier; none: those of evaluation.classifier, so that judge and scores are the same."""
    http: HttpJudge | None = None
    """A judge behind HTTP."""
    clip: float = Field(default=0.0, ge=0)
    """Weight of CLIP's likeness of picture and prompt, 100 · cos: .05 is 5 · cos. See reward_models."""
    hps: float = Field(default=0.0, ge=0)
    """Weight of the human preference score, a cosine around .2 to .3."""
    pickscore: float = Field(default=0.0, ge=0)
    """Weight of PickScore, around 18 to 24."""
    aesthetic: float = Field(default=0.0, ge=0)
    """Weight of LAION's aesthetic score, around 4 to 7."""
    python: dict[str, Weight] = Field(default={})
    """Terms of your own: their weights by `module:attribute`, such as {my_rewards:sharpness: 0.5}, or one such
    address alone, whose weight is then 1. See actors/rewards/own_term.py for what the attribute must be. A term is
    called by its attribute."""
    actors: RewardActorsSection = RewardActorsSection()
    """Processes of their own for the terms that judge a picture by itself."""
    decode_batch_size: int = Field(default=64, gt=0)
    """Sampled token grids decoded and scored at once."""
    decode_dtype: Literal["float32", "bfloat16"] = "float32"
    """The dtype of the decoder that samples are scored with, its weights included. bfloat16 is faster and ranks a
    group's samples almost alike. Under advantage.credit gradient it is also that of the way back through the
    decoder. Held-out scores and all pictures are decoded in float32."""
    gradient_batch_size: int = Field(default=8, gt=0)
    """For advantage.credit gradient: sampled token grids whose activations are in memory at once."""

    @field_validator("python", mode="before", json_schema_input_type=dict[str, Weight] | str)
    @classmethod
    def _one_address(cls, value: Any) -> Any:
        return {value: 1.0} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _own_terms_have_names(self) -> Self:
        for address in self.python:
            if not _ADDRESS.fullmatch(address):
                raise ValueError(
                    f"reward.python names {address!r}: write module:attribute, as in my_rewards:sharpness"
                )
        names = [_attribute(address) for address in self.python]
        for name in names:
            if name.lower() in (*_TERMS, "http", *_NOT_FOR_TERMS):
                raise ValueError(
                    f"reward.python names a term {name}, which is the name of something else that is measured: "
                    "give the attribute another name"
                )
            if names.count(name) > 1:
                raise ValueError(
                    f"reward.python names two terms {name}: give the attribute of one of them another name"
                )
        return self

    @property
    def own_terms(self) -> dict[str, str]:
        """Where the user's own terms are, by their names."""
        return {_attribute(address): address for address in self.python}

    @property
    def weights(self) -> dict[str, float]:
        """Of the terms that are measured, by name."""
        known = {name: getattr(self, name) for name in _TERMS}
        known["http"] = self.http.weight if self.http else 0.0
        own = {_attribute(address): weight for address, weight in self.python.items()}
        return {name: weight for name, weight in (known | own).items() if weight}

    @property
    def differentiable_weights(self) -> dict[str, float]:
        """Of the terms that have a gradient."""
        return self.comparing_weights

    @property
    def comparing_weights(self) -> dict[str, float]:
        """Of the terms that compare a sample with the image: only teacher-forced groups have one."""
        return {name: weight for name, weight in self.weights.items() if name in COMPARING}

    @property
    def judged_weights(self) -> dict[str, float]:
        """Of all others: they judge a picture by itself, with a model of their own or none."""
        return {name: weight for name, weight in self.weights.items() if name not in COMPARING}

    def comparing(self) -> Self:
        """Without the terms that judge a picture by itself."""
        return self.model_copy(update=NO_JUDGE)

    def judging(self) -> Self:
        """With those alone."""
        return self.model_copy(update=dict.fromkeys(COMPARING, 0.0))

    @property
    def preferences(self) -> list[Preference]:
        """The terms that need reward_models."""
        return [name for name in PREFERENCES if getattr(self, name)]

    def of_kind(self, kind: str) -> Self:
        """Where a step has groups of both kinds: the terms that compare are of teacher-forced groups alone, all
        others of free-running ones."""
        return self.comparing() if kind == "teacher_forced" else self.judging()


COMPARING = ("mse", "lpips", "l1")  # with the image; each has a gradient
_TERMS = (*COMPARING, "classifier", *PREFERENCES)  # whose keys are their weights
NO_JUDGE: dict[str, Any] = {"classifier": 0.0, "http": None, "python": {}} | dict.fromkeys(PREFERENCES, 0.0)
# In metrics.jsonl terms stand beside reward_mean, in the metrics beside total, in the scores beside held_out_psnr.
_NOT_FOR_TERMS = ("mean", "std", "total", "reward", "psnr", "cross_entropy", "perplexity")
NO_REWARD: dict[str, Any] = {f"reward.{name}": 0 for name in (*COMPARING, "actors.count")} | {
    f"reward.{name}": nothing for name, nothing in {**NO_JUDGE, "actors.autoscale": None}.items()
}
"""Keys for a training with the prior alone."""
_ADDRESS = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def _attribute(address: str) -> str:
    return address.rpartition(":")[2]


Credit = Literal["sample", "token", "gradient"]


class AdvantageSection(Section):
    """How much better a sample, or a token of it, is than the others of its group."""

    credit: Credit = "sample"
    """sample: a sample's tokens share one advantage, from the reward of the whole picture, as in the paper. token:
    each token has its own, from the reward around its place in the picture, compared with the same place in the
    group's other samples; groups then carry maps of the reward's terms. gradient: every codebook entry has an
    advantage at every place, from the reward's gradient through the decoder; groups then carry that gradient, in
    which the weights of mse, lpips and l1 are contained. All other terms keep the credit of sample."""
    scale: Literal["image", "global", "place"] = "image"
    """For credit gradient: what an advantage is divided by. The standard deviation of what the entries are worth
    at a place, under the policy that sampled: its root mean square over the image's places, over all places of the
    step's images, or the place's own."""
    curvature: float = Field(default=0.0, ge=0)
    """For credit gradient: subtracted from an entry's advantage per squared distance of its code from the mean
    sampled code, since the gradient says less of what is far away."""
    radius: int = Field(default=1, ge=0)
    """For credit token: the reward at a token is the mean over the (2 · radius + 1)² tokens around it, or those of
    them inside the picture. A decoder spreads a token's change over its neighbours: on the digits 18 % stays in
    the token's own place and 71 % within a radius of 1; with a wider radius, the neighbours' share grows faster
    than the token's own (`benchmarks/locality.py`; figures in docs/log.md)."""
    mix: float = Field(default=0.0, ge=0, le=1)
    """For credit token: the weight of the sample's own advantage in each of its tokens' advantages."""
    normalize_std: bool = True
    """Divide advantages by the standard deviation over the group. Without this (Dr. GRPO, arXiv 2503.20783),
    groups with similar samples teach little; learner.lr should then be larger."""


class LearnerSection(Section):
    """GRPO with the cross-entropy prior, AdamW, on one or more DDP ranks."""

    method: Method = "grpo"
    """grpo: the paper's, from groups of samples that actors have scored. ste: the picture of one code per place is
    compared with the image, and the error goes back through the decoder and a straight-through estimator into the
    policy, all in the learner; actors give images and contexts. decoder: the policy stays as it is, and the
    tokenizer's decoder learns to draw the images from its samples. Which to choose: docs/methods.md."""
    num_ranks: int = Field(default=1, gt=0)
    """Learner processes; each holds the whole policy and a share of every step's groups."""
    num_steps: int = Field(gt=0)
    """Optimizer steps of the run."""
    images_per_step: int = Field(default=128, gt=0)
    """Groups learned from in one optimizer step, over all ranks."""
    micro_batch_size: int = Field(default=8, gt=0)
    """Groups per forward and backward of a rank."""
    logit_rows: int = Field(default=2048, gt=0)
    """Tokens whose logits over the codebook are in memory at once; others are recomputed in the backward pass."""
    lr: float = Field(default=1e-6, gt=0)
    """Constant learning rate."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """AdamW's betas."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """AdamW's weight decay; norm weights are exempt."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """The gradient's norm is clipped to this."""
    clip_range: float = Field(default=0.2, gt=0)
    """ε: the ratio is clipped to [1 - ε, 1 + ε]."""
    correction: Literal["none", "truncated", "decoupled"] = "none"
    """How to treat groups of an older policy (buffer.max_staleness above 0); all choices learn the same from fresh
    groups. none: only the clip, around the policy that sampled. truncated: weight each token's gradient by its
    ratio, at most ratio_cap, without a clip. decoupled: the same weight, with the clip around the policy before
    the step; with one update per step the clip never acts, and the gradient is that of truncated."""
    ratio_cap: float = Field(default=2.0, ge=1)
    """The largest weight of a token with correction truncated or decoupled."""
    ratio: Literal["token", "sequence"] = "token"
    """token: each token has its own ratio to the policy that sampled. sequence: all tokens of a sample share the
    exponential of their mean log-ratio (GSPO, arXiv 2507.18071), which stays much nearer to 1 and needs a much
    smaller clip_range."""
    advantage_clip: float = Field(default=5.0, gt=0)
    """Advantages are clamped to ± this."""
    prior: Literal["ce", "kl"] = "ce"
    """The prior that regularises the policy. ce: cross-entropy on the image's own codes, as in the paper. kl: KL
    divergence from the initial policy, estimated on the samples as in GRPO; every rank holds a frozen copy."""
    ce_weight: float = Field(default=0.1, ge=0)
    """β: weight of the prior, ce or kl. At 0 quality collapses."""
    lora: LoraSection | None = None
    """Train low-rank adapters in place of the whole policy; null trains all of it."""
    embedding_weight: float = Field(default=0.0, ge=0)
    """λ of reAR's embedding regulariser (arXiv 2510.04450, where it is 1): two small networks, trained beside the
    policy, must find from its hidden states the codes of the token being read and of the next one."""
    max_bad_steps: int = Field(default=3, gt=0)
    """A step with a non-finite gradient updates nothing; this many in a row end the run."""
    max_restarts: int = Field(default=10, ge=0)
    """Number of lost learner ranks to replace before the run fails."""
    collective_timeout_seconds: float = Field(default=600.0, gt=0)
    """How long a rank waits for the others in a collective. If a rank hangs, or its node vanishes silently, the
    others wait this long before they continue without it."""
    step_timeout_seconds: float = Field(default=3600.0, gt=0)
    """A step that takes longer counts as hung, on whatever rank: those that do not answer then are lost."""
    num_cpus: float = Field(default=1, gt=0)
    """CPUs a rank reserves in Ray."""
    num_gpus: float = Field(default=0, ge=0)
    """GPUs a rank reserves in Ray."""
    label_selector: dict[str, str] = Field(default={})
    """Node labels that a rank's node must have, such as {ray.io/accelerator-type: H100}."""
