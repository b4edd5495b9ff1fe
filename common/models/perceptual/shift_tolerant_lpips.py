"""Shift-tolerant LPIPS (Ghildyal and Liu, ECCV 2022, arXiv 2207.13686): an LPIPS available entirely from PyPI.

The weights file of the `stlpips_pytorch` package contains trunk and heads, so nothing else is downloaded. Only
that file is read: importing the package needs two more packages that it does not declare.

Shape letters: B images (groups), G samples per group, N images, C channels, H and W pixels or feature rows and
columns.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import CheckpointError, RecipeError
from common.hub import located
from common.models.perceptual.spec import ShiftTolerantLpipsSpec
from common.models.perceptual.staged_lpips import staged_distance, staged_distance_map, staged_features
from common.models.weights_reading import not_finite

SMALLEST_SIDE = {"alex": 21, "vgg": 18}
"""The smallest side in pixels: below it, the blurs' reflections do not fit into the feature maps."""


class ShiftTolerantLpips(nn.Module):
    """A frozen `PerceptualMetric` over anti-aliased AlexNet or VGG-16 features.

    Differentiable with respect to the samples; callers that only want numbers wrap it in `torch.inference_mode()`.
    The constructor raises CheckpointError if the weights are missing or of another network.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, spec: ShiftTolerantLpipsSpec, *, trained: bool = True) -> None:
        """With `trained=False` it needs no file and its weights are meaningless: enough to count its work."""
        super().__init__()
        self.net = spec.net
        with torch.device("meta" if trained else torch.get_default_device()):  # meta: no memory, no random draw
            self.stages = _alexnet_stages() if spec.net == "alex" else _vgg16_stages()
        if trained:
            self._load(spec)
        else:
            self._leave_untrained()
        self.requires_grad_(False)
        self.eval()

    def _load(self, spec: ShiftTolerantLpipsSpec) -> None:
        path = weights_file(spec)
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
            trunk = [value for name, value in weights.items() if name.startswith("net.") and "filt" not in name]
            named = dict(zip(self.stages.state_dict(), trunk, strict=True))  # both are in forward order
            self.stages.load_state_dict(named, assign=True)
            self.register_buffer("shift", weights["scaling_layer.shift"])
            self.register_buffer("scale", weights["scaling_layer.scale"])
            heads = [weights[f"lin{k}.model.1.weight"].flatten() for k in range(len(self.stages))]
        except Exception as error:
            raise CheckpointError(
                f"{path} does not hold the weights of shift-tolerant LPIPS for net {spec.net!r} "
                f"({type(error).__name__}); set perceptual.weights to {spec.net}_shift_tolerant.pth "
                "of stlpips_pytorch."
            ) from error
        if sick := not_finite(weights):
            raise CheckpointError(
                f"{path} holds NaN or infinity in {sick}; set perceptual.weights to {spec.net}_shift_tolerant.pth "
                "of stlpips_pytorch."
            )
        self.heads = nn.ParameterList(heads)
        self.to(memory_format=torch.channels_last)  # 1.7 times as fast on a CPU

    def _leave_untrained(self) -> None:
        self.register_buffer("shift", torch.zeros(1, 3, 1, 1))
        self.register_buffer("scale", torch.ones(1, 3, 1, 1))
        last = [
            [layer for layer in stage.children() if isinstance(layer, nn.Conv2d)][-1]
            for stage in self.stages.children()
        ]
        self.heads = nn.ParameterList(torch.zeros(conv.out_channels) for conv in last)

    def reference_features(self, pixels_BCHW: Tensor) -> list[Tensor]:
        """Unit-length features of the source images, one tensor [B, C, H, W] per stage.

        Raises RecipeError for images too small for the network.
        """
        smallest = SMALLEST_SIDE[self.net]
        if min(pixels_BCHW.shape[-2:]) < smallest:
            raise RecipeError(
                f"Images of {tuple(pixels_BCHW.shape[-2:])} pixels are too small for shift-tolerant LPIPS: "
                f"perceptual.net {self.net!r} needs {smallest} a side. Use larger images or another net."
            )
        return staged_features(self.stages, self._scaled(pixels_BCHW))

    def distance(self, pixels_BGCHW: Tensor, reference: list[Tensor]) -> Tensor:
        """Distance float32 [B, G] to the source images of `reference`; 0 for equal images."""
        return staged_distance(self.stages, self.heads, self._scaled(pixels_BGCHW.flatten(0, 1)), reference)

    def distance_map(self, pixels_BGCHW: Tensor, reference: list[Tensor], grid_size: int) -> Tensor:
        """The distance at each place, float32 [B, G, grid_size²]; its mean over the grid is `distance`."""
        images_NCHW = self._scaled(pixels_BGCHW.flatten(0, 1))
        return staged_distance_map(self.stages, self.heads, images_NCHW, reference, grid_size)

    def _scaled(self, pixels_NCHW: Tensor) -> Tensor:
        scaled_NCHW = (pixels_NCHW.to(self.shift.dtype) - self.shift) / self.scale
        return scaled_NCHW.contiguous(memory_format=torch.channels_last)


class _Blur(nn.Module):
    """Halves a feature map after a [1, 2, 1] x [1, 2, 1] / 16 blur, with edges reflected by two."""

    def forward(self, hidden: Tensor) -> Tensor:
        # Two 2x2 means make that blur without a filter per channel.
        padded = F.pad(hidden, (2, 2, 2, 2), mode="reflect")
        return F.avg_pool2d(F.avg_pool2d(padded, 2, stride=1), 2, stride=2)


def _conv(channels_in: int, channels_out: int, size: int, padding: int) -> list[nn.Module]:
    return [nn.Conv2d(channels_in, channels_out, size, padding=padding), nn.ReLU(inplace=True)]


def _alexnet_stages() -> nn.ModuleList:
    """AlexNet with stride 1 in its first convolution; each halving is a blur."""
    first, relu = _conv(3, 64, 11, 2)
    return nn.ModuleList(
        [
            nn.Sequential(first, _Blur(), relu),
            nn.Sequential(nn.MaxPool2d(3, stride=1), _Blur(), *_conv(64, 192, 5, 2)),
            nn.Sequential(nn.MaxPool2d(3, stride=1), _Blur(), *_conv(192, 384, 3, 1)),
            nn.Sequential(*_conv(384, 256, 3, 1)),
            nn.Sequential(*_conv(256, 256, 3, 1)),
        ]
    )


def _vgg16_stages() -> nn.ModuleList:
    """VGG-16 whose poolings have stride 1 and are followed by a blur."""
    stages = nn.ModuleList([nn.Sequential(*_conv(3, 64, 3, 1), *_conv(64, 64, 3, 1))])
    for channels_in, channels, num_convs in ((64, 128, 2), (128, 256, 3), (256, 512, 3), (512, 512, 3)):
        layers = [nn.MaxPool2d(2, stride=1), _Blur(), *_conv(channels_in, channels, 3, 1)]
        for _ in range(num_convs - 1):
            layers += _conv(channels, channels, 3, 1)
        stages.append(nn.Sequential(*layers))
    return stages


def weights_file(spec: ShiftTolerantLpipsSpec) -> Path:
    """The weights file named in `spec`, else that of the installed package, found without importing it."""
    if spec.weights is not None:
        path = located(spec.weights, "perceptual.weights")
        if path.is_file():
            return path
        raise CheckpointError(f"perceptual.weights names {path}, which is not a file.")
    package = find_spec("stlpips_pytorch")
    for folder in package.submodule_search_locations or [] if package else []:
        path = Path(folder) / "weights" / "vST0.0" / f"{spec.net}_shift_tolerant.pth"
        if path.is_file():
            return path
    raise CheckpointError(
        f"The weights {spec.net}_shift_tolerant.pth of shift-tolerant LPIPS are not installed: "
        "pip install stlpips_pytorch (extra `demo`), or set perceptual.weights to that file."
    )
