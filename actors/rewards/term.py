"""What a term of the reward is. Letters: B images, G samples per image, T image tokens, C, H, W of a picture."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from common.protocols import Condition


@dataclass(frozen=True)
class Sources:
    """The images that groups are made of."""

    pixels_BCHW: Tensor  # float32 in [-1, 1]
    condition: Condition  # as the policy was given it, [B, …] per column
    image_ids: tuple[str, ...]
    texts: tuple[str, ...] = ()  # their captions, or the names of their classes; empty where there are none

    def __getitem__(self, images: slice) -> "Sources":
        condition = {name: column[images] for name, column in self.condition.items()}
        return Sources(self.pixels_BCHW[images], condition, self.image_ids[images], self.texts[images])


class RewardTerm(Protocol):
    """Measures decoded pictures. A user's own may be a plain function `measure` (lower is better)."""

    higher_is_better: bool
    stage: str  # of the actor's clock: what the time of measuring counts as

    def measure(self, decoded_BGCHW: Tensor, sources: Sources) -> Tensor:
        """Float32 [B, G]; pictures float32, around [-1, 1] and not clamped for the terms that compare with the
        image (mse, lpips, l1), in [-1, 1] and of 8 bits a colour for all others."""


class MappedTerm(RewardTerm, Protocol):
    """A term that can also say where in the picture it comes from, which credit by token is built on."""

    def measure_map(self, decoded_BGCHW: Tensor, sources: Sources, grid_size: int) -> tuple[Tensor, Tensor]:
        """The term, and float32 [B, G, T] over a grid_size x grid_size grid; its mean over T is the term."""
