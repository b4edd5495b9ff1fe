"""The algorithm's settings. Defaults are the paper's (arXiv 2512.19680)."""

from typing import Annotated, Literal

from pydantic import Field

from common.config.base import Section

Beta = Annotated[float, Field(ge=0, lt=1)]


class ContextSection(Section):
    """The teacher-forcing context."""

    noise: float = Field(default=0.0, ge=0, le=1)
    """ξ: the probability that a context token is replaced by a uniform codebook id."""
    noise_schedule: Literal["constant", "linear"] = "constant"
    """constant: ξ is noise throughout. linear: it goes from noise in the first step to noise_end in the last, by
    the step that the image belongs to, not by who rolls it out or when."""
    noise_end: float = Field(default=0.0, ge=0, le=1)
    """For noise_schedule linear: ξ in the last of learner.num_steps."""
    condition_drop: float = Field(default=0.0, ge=0, lt=1)
    """The probability that a group's condition is dropped, so that guidance keeps working."""


class GroupSection(Section):
    """The samples of one source image."""

    size: int = Field(default=8, ge=2)
    """G: samples per group."""
    temperature: float = Field(default=1.0, gt=0)
    """Softmax temperature of sampling; log-probabilities use the same temperature."""
    top_k: int = Field(default=0, ge=0)
    """Draw samples from this many most likely tokens at each position; 0: from all. Both sides of the ratio are
    probabilities within the most likely tokens of their own policy; a sampled token outside those of the learner's
    counts as kept, so that its ratio stays finite and it can be learned from."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """The same with the fewest most likely tokens whose probabilities add up to this; 1: all."""


class RewardSection(Section):
    """r = -(mse_weight · MSE + lpips_weight · LPIPS + l1_weight · L1), images in [-1, 1].

    A term of weight 0 is not computed."""

    mse_weight: float = Field(default=1.0, ge=0)
    """Weight of the mean squared error."""
    lpips_weight: float = Field(default=1.0, ge=0)
    """Weight of the perceptual distance."""
    l1_weight: float = Field(default=0.0, ge=0)
    """Weight of the mean absolute error, which is recorded in the groups if this is above 0."""
    decode_batch_size: int = Field(default=64, gt=0)
    """Sampled token grids decoded and scored at once."""
    decode_dtype: Literal["float32", "bfloat16"] = "float32"
    """The decoder's dtype. bfloat16 is faster and ranks a group's samples almost alike."""


class AdvantageSection(Section):
    """How much better a sample, or a token of it, is than the others of its group."""

    credit: Literal["sample", "token"] = "sample"
    """sample: a sample's tokens share one advantage, from the reward of the whole picture, as in the paper. token:
    each token has its own, from the reward around its place in the picture, compared with the same place in the
    group's other samples; groups then carry maps of the reward's terms."""
    radius: int = Field(default=1, ge=0)
    """For credit token: the reward at a token is the mean over the (2 · radius + 1)² tokens around it, or those of
    them inside the picture. A decoder spreads a token's change over its neighbours: with the demo's, 18 % stays in
    the token's own place and 71 % within a radius of 1; with a wider radius, the neighbours' share grows faster
    than the token's own (`benchmarks/locality.py`; figures in docs/log.md)."""
    mix: float = Field(default=0.0, ge=0, le=1)
    """For credit token: the weight of the sample's own advantage in each of its tokens' advantages."""
    normalize_std: bool = True
    """Divide advantages by the standard deviation over the group. Without this (Dr. GRPO, arXiv 2503.20783),
    groups with similar samples teach little; learner.lr should then be larger."""


class LearnerSection(Section):
    """GRPO with the cross-entropy prior, AdamW, on one or more DDP ranks."""

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
    max_bad_steps: int = Field(default=3, gt=0)
    """A step with a non-finite gradient updates nothing; this many in a row end the run."""
    max_restarts: int = Field(default=10, ge=0)
    """Number of lost learner ranks to replace before the run fails."""
    collective_timeout_seconds: float = Field(default=600.0, gt=0)
    """How long a rank waits for the others in a collective. If a rank hangs, or its node vanishes silently, the
    others wait this long before they continue without it."""
    num_cpus: float = Field(default=1, gt=0)
    """CPUs a rank reserves in Ray."""
    num_gpus: float = Field(default=0, ge=0)
    """GPUs a rank reserves in Ray."""
    label_selector: dict[str, str] = Field(default={})
    """Node labels that a rank's node must have, such as {ray.io/accelerator-type: H100}."""
