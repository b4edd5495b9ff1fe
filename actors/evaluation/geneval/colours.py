"""The colours of objects, by CLIP: thirty sentences against the object alone on grey.

Letter: E width of an embedding.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from actors.evaluation.geneval.rules import COLOURS, Detection
from common.models.clip.clip import LoadedClip

GREY = "#999"
TEMPLATES = (
    "a photo of a {colour} {name}",
    "a photo of a {colour}-colored {name}",
    "a photo of a {colour} object",
)


class Colours:
    def __init__(self, clip: LoadedClip):
        self._clip = clip
        self._sentences = cache(self._embedded)

    def __call__(self, image: Image.Image, name: str, objects: Sequence[Detection]) -> list[str]:
        """The likeliest of COLOURS for each object of a picture."""
        crops = [alone(image, each) for each in objects]
        embedded = torch.cat([self._clip.embed_pictures(_pixels(crop)) for crop in crops])
        return [COLOURS[place] for place in (embedded @ self._sentences(name).T).argmax(dim=1).tolist()]

    def _embedded(self, name: str) -> Tensor:
        """A unit vector [10, E] per colour: the mean of those of its sentences."""
        means = [
            self._clip.embed_texts([each.format(colour=colour, name=name) for each in TEMPLATES]).mean(dim=0)
            for colour in COLOURS
        ]
        return torch.nn.functional.normalize(torch.stack(means), dim=-1)


def alone(image: Image.Image, detection: Detection) -> Image.Image:
    """The object's box, grey outside its mask."""
    grey = Image.new("RGB", image.size, GREY)
    return Image.composite(image, grey, Image.fromarray(detection.mask_HW)).crop(detection.box)


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
