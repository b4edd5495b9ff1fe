"""Decoded samples as judges see them: as a file of them would be, 8 bits a colour, wherever the judge is.

Letters: B images, G samples per image, C, H, W of a picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from common.pixels import from_bytes, to_bytes


@dataclass(frozen=True)
class JudgedPictures:
    pixels_BGCHW: Tensor  # uint8, contiguous: the order in memory is part of the arithmetic
    is_sound_BG: Tensor  # bool: the decoder gave numbers alone

    @classmethod
    def of(cls, decoded_BGCHW: Tensor) -> Self:
        """Of pictures around [-1, 1], which are clamped."""
        return cls(to_bytes(decoded_BGCHW).contiguous(), decoded_BGCHW.isfinite().flatten(2).all(dim=2))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self | None:
        """Those of all parts, in order; None without parts."""
        if not parts:
            return None
        pixels, is_sound = ([getattr(part, name) for part in parts] for name in ("pixels_BGCHW", "is_sound_BG"))
        return cls(torch.cat(pixels), torch.cat(is_sound))

    def __getitem__(self, images: slice) -> "JudgedPictures":
        return JudgedPictures(self.pixels_BGCHW[images], self.is_sound_BG[images])

    def __len__(self) -> int:
        """B."""
        return len(self.pixels_BGCHW)

    def to(self, device: torch.device) -> "JudgedPictures":
        return JudgedPictures(self.pixels_BGCHW.to(device), self.is_sound_BG.to(device))

    def floats(self) -> Tensor:
        """Float32 [B, G, C, H, W] in [-1, 1]."""
        return from_bytes(self.pixels_BGCHW)
