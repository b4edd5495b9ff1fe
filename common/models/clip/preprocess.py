"""Pictures as CLIP takes them. Letters: N pictures, C, H, W of a picture."""

from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import center_crop, normalize, resize

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def prepared(pixels_NCHW: Tensor, size: int) -> Tensor:
    """Pictures in [0, 1] (others are clamped): shorter side `size`, middle square, normalised.

    Bicubic and antialiased, as Pillow is: without, pixels of a smaller picture are off by up to .16. Bicubic
    overshoots, hence the second clamp.
    """
    resized = resize(pixels_NCHW.clamp(0, 1), [size], InterpolationMode.BICUBIC, antialias=True).clamp(0, 1)
    return normalize(center_crop(resized, [size, size]), MEAN, STD)
