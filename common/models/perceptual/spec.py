"""Perceptual metrics in a recipe."""

from typing import Literal

from common.config.base import Section


class LpipsSpec(Section):
    """LPIPS (arXiv 1801.03924) by the `lpips` package."""

    family: Literal["lpips"] = "lpips"
    """The metric family."""
    net: Literal["vgg", "alex", "squeeze"] = "vgg"
    """The trunk; the paper's class-conditional runs use VGG-16."""
    trunk: str | None = None
    """A local file with the trunk's ImageNet weights from torchvision; null downloads it once."""


class ShiftTolerantLpipsSpec(Section):
    """Shift-tolerant LPIPS (ECCV 2022), with the weights in the `stlpips_pytorch` package."""

    family: Literal["shift_tolerant_lpips"]
    """The metric family."""
    net: Literal["alex", "vgg"] = "alex"
    """The trunk."""
    weights: str | None = None
    """The weights file; null uses the one in the installed `stlpips_pytorch` package."""
