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
)
from common.protocols import Condition, PerceptualMetric


@dataclass(frozen=True)
class UntrainedModels:
    policy: PolicyModule
    tokenizer: TokenizerModule
    perceptual: PerceptualMetric | None  # None if the reward does not use it

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        size = {"codebook_size": recipe.tokenizer.codebook_size, "grid_size": recipe.grid_size}
        tokenizer = build_tokenizer(recipe.tokenizer, image_size=recipe.image_size)
        uses_metric = recipe.reward.lpips_weight > 0
        return cls(
            policy=build_policy(recipe.policy, **size).eval(),
            tokenizer=tokenizer.eval().requires_grad_(False),
            perceptual=build_perceptual_metric(recipe.perceptual, trained=False) if uses_metric else None,
        )


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
    spec = recipe.policy
    if spec.conditioning == "class":
        return {"label": tokens(num_rows)}
    features = torch.zeros(num_rows, spec.caption_length, spec.caption_dim, dtype=torch.float16)
    return {
        "caption_features": features,
        "caption_mask": torch.ones(num_rows, spec.caption_length, dtype=torch.bool),
    }
