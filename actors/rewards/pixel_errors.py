"""The pixels of a sample against those of its source image: mean squared and mean absolute error.

Letters: B images, G samples per image, T image tokens, C, H, W of a picture.
"""

from torch import Tensor

from actors.rewards.term import Sources
from common.token_grid import pool_to_grid


class SquaredError:
    """mean((Î - I)²), images in [-1, 1]."""

    higher_is_better = False
    stage = "decode"

    def measure(self, decoded_BGCHW: Tensor, sources: Sources) -> Tensor:
        return self._errors(decoded_BGCHW, sources).mean(dim=(2, 3, 4))

    def measure_map(self, decoded_BGCHW: Tensor, sources: Sources, grid_size: int) -> tuple[Tensor, Tensor]:
        errors_BGCHW = self._errors(decoded_BGCHW, sources)
        return errors_BGCHW.mean(dim=(2, 3, 4)), pool_to_grid(errors_BGCHW.mean(dim=2), grid_size)

    def _errors(self, decoded_BGCHW: Tensor, sources: Sources) -> Tensor:
        return (decoded_BGCHW - sources.pixels_BCHW[:, None]).square()


class AbsoluteError(SquaredError):
    """mean |Î - I|."""

    def _errors(self, decoded_BGCHW: Tensor, sources: Sources) -> Tensor:
        return (decoded_BGCHW - sources.pixels_BCHW[:, None]).abs()
