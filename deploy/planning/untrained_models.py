"""The recipe's models as fake tensors: all shapes, no numbers, no weights files.

Call everything here inside a FakeTensorMode.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from common.config.recipe import Recipe
from common.models.families import (
    PolicyModule,
    TokenizerModule,
    build_perceptual_metric,
    build_policy,
    build_tokenizer,
    condition_format,
)
from common.models.lora import add_adapters, layers_to_adapt
from common.protocols import Condition, PerceptualMetric
from common.weights.snapshot import linear_parameters, make_bfloat16
from deploy.planning.judges import UntrainedJudges
from learner.beside_decoder import discriminator_layers


@dataclass(frozen=True)
class UntrainedModels:
    policy: PolicyModule
    tokenizer: TokenizerModule
    perceptual: PerceptualMetric | None  # None if the reward does not use it
    judges: UntrainedJudges
    discriminator: nn.Module | None  # beside a decoder that is trained

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        size = {"codebook_size": recipe.tokenizer.codebook_size, "grid_size": recipe.grid_size}
        tokenizer = build_tokenizer(recipe.tokenizer, image_size=recipe.image_size)
        uses_metric = recipe.reward.lpips > 0
        return cls(
            policy=_policy(recipe, **size),
            tokenizer=tokenizer.eval().requires_grad_(False),
            perceptual=build_perceptual_metric(recipe.perceptual, trained=False) if uses_metric else None,
            judges=UntrainedJudges.of(recipe),
            discriminator=discriminator_layers(recipe.seed) if recipe.decoder.gan_weight else None,
        )


def _policy(recipe: Recipe, **size: int) -> PolicyModule:
    """Frozen beside adapters and as autocast uses it, where the recipe has some."""
    policy, section = build_policy(recipe.policy, **size).eval(), recipe.learner.lora
    if section is not None:
        if recipe.has_narrow_weights:
            make_bfloat16(policy, linear_parameters(policy))
        add_adapters(policy, section, layers_to_adapt(policy, section))
    return policy


def size_bytes(module: object) -> int:
    """Bytes of a module's parameters and buffers; 0 for None."""
    if not isinstance(module, nn.Module):
        return 0
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def tokens(*shape: int) -> Tensor:
    """Token ids of this shape."""
    return torch.zeros(shape, dtype=torch.long)


def pixels(recipe: Recipe, num_images: int) -> Tensor:
    return torch.zeros(num_images, 3, recipe.image_size, recipe.image_size)


def condition(recipe: Recipe, num_rows: int) -> Condition:
    """The policy's condition, as it arrives in a group."""
    columns = condition_format(recipe.policy).columns
    return {
        name: torch.zeros((num_rows, *shape), dtype=getattr(torch, dtype))
        for name, (dtype, shape) in columns.items()
    }
