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
    """A local file with torchvision's ImageNet weights of the trunk; null downloads it once."""


class ShiftTolerantLpipsSpec(Section):
    """Shift-tolerant LPIPS (ECCV 2022), whose weights arrive with the `stlpips_pytorch` package."""

    family: Literal["shift_tolerant_lpips"]
    """The metric family."""
    net: Literal["alex", "vgg"] = "alex"
    """The trunk."""
    weights: str | None = None
    """The weights file; null takes it from the installed `stlpips_pytorch` package."""
