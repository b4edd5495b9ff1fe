"""The recipe's models: built, loaded from their weights files, frozen if they should be, and moved to a device."""

import torch
from torch import Tensor

from common.code_credit import codebook_codes
from common.config.recipe import Recipe
from common.machine import require_compiler
from common.models.adapter_files import Adapters, adapters_at, read_adapters, read_base
from common.models.families import (
    PolicyModule,
    TokenizerModule,
    build_perceptual_metric,
    build_policy,
    build_tokenizer,
)
from common.models.image_classifier import ImageClassifier
from common.models.lora import add_adapters, draw_adapters, layers_to_adapt
from common.models.weights_files import load_weights
from common.protocols import PerceptualMetric
from common.weights.snapshot import linear_parameters, make_bfloat16


def load_policy(
    recipe: Recipe, device: torch.device, checkpoint: str | None = None, *, may_compile: bool = True
) -> PolicyModule:
    """The generator in eval mode, from `checkpoint` or the recipe's, to compute as the recipe's `compute` says.

    With learner.lora, adapters that give zeros are beside the recipe's weights, which are frozen; those of a
    `checkpoint` of adapters are in any case. Raises CheckpointError, RecipeError for targets that the policy does
    not have, and ClusterError where it cannot be compiled. Free-running sampling does without.
    """
    spec = recipe.policy
    with torch.device("meta"):
        policy = build_policy(spec, codebook_size=recipe.tokenizer.codebook_size, grid_size=recipe.grid_size)
    path = adapters_at(checkpoint, "--checkpoint")
    if checkpoint and path is None:
        load_weights(policy, checkpoint, what="policy", setting="--checkpoint")
    else:
        _load_base(policy, recipe, read_adapters(path) if path else None)
    policy = policy.to(device).eval()
    policy.as_released = recipe.profile == "published"
    policy.activation_checkpointing = recipe.compute.activation_checkpointing
    if recipe.compute.compile and may_compile:
        require_compiler(device)
        policy.compile_blocks()
    return policy


def _load_base(policy: PolicyModule, recipe: Recipe, adapters: Adapters | None) -> None:
    """Fill the policy with the recipe's weights, and add `adapters`, or new ones where the recipe has some."""
    spec, section = recipe.policy, recipe.learner.lora
    if adapters is not None:
        adapters.require_base(read_base(spec.checkpoint), spec.checkpoint)
    if (
        adapters or section
    ) and recipe.has_narrow_weights:  # before they take up memory: autocast casts them anyway
        make_bfloat16(policy, linear_parameters(policy))
    load_weights(policy, spec.checkpoint, what="policy", obtain_from=spec.obtain_from)
    if adapters is not None:
        adapters.add_to(policy)
    elif section is not None:
        add_adapters(policy, section, layers_to_adapt(policy, section))
        draw_adapters(policy, recipe.seed)


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
