"""The recipe's models: built, loaded from their weights files, frozen if they should be, and moved to a device."""

import torch
from torch import Tensor

from common.code_credit import codebook_codes
from common.config.recipe import Recipe
from common.machine import require_compiler
from common.models.families import (
    PolicyModule,
    TokenizerModule,
    build_perceptual_metric,
    build_policy,
    build_tokenizer,
)
from common.models.image_classifier import ImageClassifier
from common.models.weights_files import load_weights
from common.protocols import PerceptualMetric


def load_policy(
    recipe: Recipe, device: torch.device, checkpoint: str | None = None, *, may_compile: bool = True
) -> PolicyModule:
    """The generator in eval mode, from `checkpoint` or the recipe's, to compute as the recipe's `compute` says.

    Raises CheckpointError, and ClusterError where it cannot be compiled. Free-running sampling does without.
    """
    spec = recipe.policy
    with torch.device("meta"):
        policy = build_policy(spec, codebook_size=recipe.tokenizer.codebook_size, grid_size=recipe.grid_size)
    if checkpoint:
        load_weights(policy, checkpoint, what="policy", setting="--checkpoint")
    else:
        load_weights(policy, spec.checkpoint, what="policy", obtain_from=spec.obtain_from)
    policy = policy.to(device).eval()
    policy.activation_checkpointing = recipe.compute.activation_checkpointing
    if recipe.compute.compile and may_compile:
        require_compiler(device)
        policy.compile_blocks()
    return policy


def load_tokenizer(recipe: Recipe, device: torch.device) -> TokenizerModule:
    """The frozen tokenizer, float32."""
    spec = recipe.tokenizer
    with torch.device("meta"):
        tokenizer = build_tokenizer(spec, image_size=recipe.image_size)
    load_weights(tokenizer, spec.checkpoint, what="tokenizer", obtain_from=spec.obtain_from)
    tokenizer = tokenizer.to(device).eval().requires_grad_(False)
    # On CUDA group norms copy channels_last to contiguous, and convolutions copy it back.
    return tokenizer if device.type == "cuda" else tokenizer.to(memory_format=torch.channels_last)


def load_trained(recipe: Recipe, device: torch.device) -> PolicyModule | TokenizerModule:
    """What the learner trains: the policy; or the tokenizer, of which the decoder alone has gradients."""
    if not recipe.trains_decoder:
        return load_policy(recipe, device)
    tokenizer = load_tokenizer(recipe, device)
    tokenizer.train_decoder()
    return tokenizer


def load_codes(recipe: Recipe, device: torch.device) -> Tensor:
    """The vectors of the tokenizer's codebook, float32 [V, D]; of the rest nothing is kept."""
    cpu = torch.device("cpu")
    return codebook_codes(load_tokenizer(recipe, cpu), cpu).to(device)


def load_perceptual_metric(recipe: Recipe, device: torch.device) -> PerceptualMetric | None:
    """The perceptual metric, or None where the reward does not use it."""
    if not recipe.reward.lpips:
        return None
    return build_perceptual_metric(recipe.perceptual).to(device)


def load_judge_classifier(recipe: Recipe, device: torch.device) -> ImageClassifier:
    """The classifier that is a term of the reward, frozen."""
    classifier = ImageClassifier(recipe.policy.num_classes)
    checkpoint = recipe.reward.classifier_checkpoint or recipe.evaluation.classifier
    load_weights(classifier, checkpoint, what="reward.classifier_checkpoint")
    return classifier.to(device).eval().requires_grad_(False)
