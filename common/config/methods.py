"""The training methods beside GRPO: their settings, and what they cannot be combined with."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from common.config.base import Section

if TYPE_CHECKING:
    from common.config.recipe import Recipe

Method = Literal["grpo", "ste", "decoder"]

_FREE_RUNNING = "rollout has free-running groups (rollout.kind or rollout.free_running), which have none"


class SteSection(Section):
    """learner.method ste: the straight-through estimator (Bengio et al. 2013, arXiv 1308.3432)."""

    sample: Literal["argmax", "gumbel"] = "argmax"
    """The code that is decoded at each place. argmax: the likeliest, as in the paper. gumbel: one that is drawn,
    with Gumbel noise that the way back has too, as in the released scripts."""
    tau: float = Field(default=1.0, gt=0)
    """The way back is that of softmax(logits / tau)."""


class DecoderSection(Section):
    """learner.method decoder. With weights of 0 it is the paper's form, which smooths in a long training."""

    clean_weight: float = Field(default=0.0, ge=0)
    """Weight of the same loss for the images' own codes, so that reconstructions stay good."""
    anchor_weight: float = Field(default=0.0, ge=0)
    """Weight of the distance, by the same terms, of a sample's picture to that of the initial decoder, which every
    rank then holds a frozen copy of; so that the decoder stays near it."""
    ema_weight: float = Field(default=0.0, ge=0)
    """Weight of the same distance to what a moving average of the decoder draws, which every rank then holds; so
    that it changes slowly, and may go far."""
    ema_decay: float = Field(default=0.999, gt=0, lt=1)
    """What the average keeps of itself at each step."""
    gan_weight: float = Field(default=0.0, ge=0)
    """Weight of a discriminator of patches (PatchGAN, hinge loss), that samples' pictures should look like images
    to; against smoothness. It is trained on the ranks, from the first step."""
    gan_start: int = Field(default=0, ge=0)
    """Steps that the discriminator learns alone, before its weight counts."""
    gan_lr: float = Field(default=2e-5, gt=0)
    """The discriminator's rate, constant."""


def method_problems(recipe: "Recipe") -> Iterator[str]:
    """What `learner.method` cannot be combined with, a sentence each, with what to change."""
    method = recipe.learner.method
    if method != "ste" and recipe.ste != SteSection():
        yield f"ste is set, and learner.method is {method}: set learner.method=ste, or leave ste out"
    if method != "decoder" and recipe.decoder != DecoderSection():
        yield (f"decoder is set, and learner.method is {method}: set learner.method=decoder, or leave decoder out")
    if recipe.learner.embedding_weight:
        yield from _of_embedding_weight(recipe)
    if recipe.learner.lora and method == "decoder":
        yield "learner.lora is set, and learner.method is decoder, which trains no policy: set learner.lora=null"
    if recipe.has_whole_context and (recipe.context.kernel == "self" or "free_running" in recipe.rollout.shares):
        yield (
            "profile is published, and Janus then reads its logits a token late: set profile=corrected, or leave "
            "out context.kernel=self and free-running groups"
        )
    if method != "grpo":
        yield from _of_others(recipe, method)
    if method == "decoder":
        yield from _of_decoder(recipe)


def _of_embedding_weight(recipe: "Recipe") -> Iterator[str]:
    if recipe.compute.compile:
        yield (
            "learner.embedding_weight looks into the policy's blocks, which compute.compile seals: set one of the "
            "two alone"
        )
    if recipe.learner.lora:
        yield (
            "learner.embedding_weight trains networks beside the policy, and learner.lora adapters alone: set one "
            "of the two"
        )
    if "free_running" in recipe.rollout.shares:
        yield (
            f"learner.embedding_weight is {recipe.learner.embedding_weight:g}, which is for the codes of images, "
            f"and {_FREE_RUNNING}: set learner.embedding_weight=0, or leave rollout out"
        )


def _of_others(recipe: "Recipe", method: Method) -> Iterator[str]:
    if "free_running" in recipe.rollout.shares:
        yield (
            f"learner.method is {method}, which compares pictures with images, and {_FREE_RUNNING}: leave rollout "
            "out, or set learner.method=grpo"
        )
    if not recipe.reward.differentiable_weights:
        yield (
            f"learner.method is {method}, but no term with a gradient has a weight: give reward.mse, reward.lpips "
            "or reward.l1 one, or set learner.method=grpo"
        )
    for key in ("classifier", "http", "python"):
        if getattr(recipe.reward, key):
            yield (
                f"learner.method is {method} and reward.{key} is set, which has no gradient: leave reward.{key} "
                "out, or set learner.method=grpo"
            )
    yield from _unused(recipe, method)


def _unused(recipe: "Recipe", method: Method) -> Iterator[str]:
    for key, value, default in (
        ("advantage.credit", recipe.advantage.credit, "sample"),
        ("learner.prior", recipe.learner.prior, "ce"),
        ("learner.correction", recipe.learner.correction, "none"),
        ("learner.ratio", recipe.learner.ratio, "token"),
        ("learner.embedding_weight", recipe.learner.embedding_weight, 0),
    ):
        if value != default:
            yield (
                f"learner.method is {method} and {key} is {value}, which is for grpo alone: set "
                f"{key}={default}, or learner.method=grpo"
            )


def _of_decoder(recipe: "Recipe") -> Iterator[str]:
    if recipe.profile == "published":
        yield (
            "learner.method is decoder and profile published, which is for the training of the policy: set "
            "profile=corrected"
        )
    if recipe.reward.decode_dtype != "float32":
        yield (
            f"learner.method is decoder, which learns in float32, and reward.decode_dtype is "
            f"{recipe.reward.decode_dtype}: set reward.decode_dtype=float32"
        )
