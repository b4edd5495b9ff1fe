"""Terms of the reward as somebody writes them, in a module that the product knows nothing of.

Letters: B images, G samples per image, T image tokens, C, H, W of a picture.
"""

import torch
from torch import Tensor

from actors.rewards.term import Sources

SPOILED: dict[str, str] = {}
"""What `term` does, by the id of an image: it raises, or gives a wrong shape, a number that is not finite, or the
same for all samples."""


def term(decoded_BGCHW: Tensor, sources: Sources) -> Tensor:
    """How far the mean brightness of a sample is from its image's."""
    kinds = {SPOILED.get(image_id, SPOILED.get("every image", "")) for image_id in sources.image_ids}
    if "raises" in kinds:
        raise ValueError("no such colour\nin the middle of a long trace")
    brightness_BG = decoded_BGCHW.mean(dim=(2, 3, 4))
    distance_BG = (brightness_BG - sources.pixels_BCHW.mean(dim=(1, 2, 3))[:, None]).abs()
    if "wrong shape" in kinds:
        return distance_BG[:, :-1]
    for kind, value in (("not finite", float("nan")), ("constant", 0.3)):
        is_so_B = torch.tensor([SPOILED.get(image_id) == kind for image_id in sources.image_ids])
        distance_BG = distance_BG.masked_fill(is_so_B[:, None], value)
    return distance_BG


def darkness(decoded_BGCHW: Tensor, _: Sources) -> Tensor:
    """Lower is better: what learns from it alone becomes bright."""
    return -decoded_BGCHW.mean(dim=(2, 3, 4))


class Likeness:
    """Higher is better; says where in the picture, too."""

    higher_is_better = True

    def measure(self, decoded_BGCHW: Tensor, sources: Sources) -> Tensor:
        return self._likeness(decoded_BGCHW, sources).mean(dim=(2, 3))

    def measure_map(self, decoded_BGCHW: Tensor, sources: Sources, grid_size: int) -> Tensor:
        cell = decoded_BGCHW.shape[-1] // grid_size
        likeness_BGHW = self._likeness(decoded_BGCHW, sources)
        return likeness_BGHW.unflatten(-1, (-1, cell)).unflatten(-3, (-1, cell)).mean(dim=(-1, -3)).flatten(-2)

    def _likeness(self, decoded_BGCHW: Tensor, sources: Sources) -> Tensor:
        return 1 - (decoded_BGCHW - sources.pixels_BCHW[:, None]).abs().mean(dim=2)


class Brightness:
    """Higher is better; an object of it is named, since it needs an argument."""

    higher_is_better = True

    def __init__(self, scale: float):
        self._scale = scale

    def measure(self, decoded_BGCHW: Tensor, sources: Sources) -> Tensor:
        assert len(sources.condition["label"]) == len(decoded_BGCHW)
        return self._scale * decoded_BGCHW.mean(dim=(2, 3, 4))


brightness = Brightness(scale=2.0)


class OnlyAMap:
    def measure_map(self, decoded_BGCHW: Tensor, sources: Sources, grid_size: int) -> Tensor:
        raise NotImplementedError


number = 3
