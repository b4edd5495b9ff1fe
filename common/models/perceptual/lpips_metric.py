"""LPIPS (Zhang et al., CVPR 2018, arXiv 1801.03924) by the `lpips` package, which only this module imports.

The package contains the linear heads (v0.1); the ImageNet trunk is torchvision's, from a local file or from
torchvision's download, which is kept under TORCH_HOME.

Shape letters: B images (groups), G samples per group, C channels, H and W pixels.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlparse

import lpips
import torch
from torch import Tensor, nn
from torchvision import models

from common.errors import CheckpointError
from common.hub import located, may_fetch
from common.models.perceptual.spec import LpipsSpec
from common.models.perceptual.staged_lpips import staged_distance, staged_distance_map, staged_features
from common.models.weights_reading import not_finite

TRUNK_URLS = {
    "alex": models.AlexNet_Weights.IMAGENET1K_V1.url,
    "vgg": models.VGG16_Weights.IMAGENET1K_V1.url,
    "squeeze": models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url,
}
"""URLs of torchvision's weights that LPIPS's heads were trained on."""


class LpipsMetric(nn.Module):
    """A frozen `PerceptualMetric`, equal to `lpips.LPIPS(net=..., version="0.1")`.

    Differentiable with respect to the samples; callers that only want numbers wrap it in `torch.inference_mode()`.
    The constructor raises CheckpointError if the trunk is missing or of another network.
    """

    def __init__(self, spec: LpipsSpec, *, trained: bool = True) -> None:
        """With `trained=False` the trunk is random and needs no file: enough to count its work."""
        super().__init__()
        trunk = _read_trunk(spec) if trained else None
        # Random weights first, then the trunk, because lpips itself can only download. Drawing them must not
        # advance the caller's random state, and lpips builds the network with a deprecated argument.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="torchvision")
            network = lpips.LPIPS(net=spec.net, pnet_rand=True, verbose=False)
        stages = [getattr(network.net, f"slice{k + 1}") for k in range(network.net.N_slices)]
        if trunk is not None:
            _load_trunk(stages, trunk, spec)
        self.scaling = network.scaling_layer
        self.stages = nn.ModuleList(stages)
        self.heads = nn.ParameterList([head.model[-1].weight.detach().flatten() for head in network.lins])
        if trained:
            self.to(memory_format=torch.channels_last)
        self.requires_grad_(False)
        self.eval()

    def reference_features(self, pixels_BCHW: Tensor) -> list[Tensor]:
        """Unit-length features of the source images, one tensor [B, C, H, W] per stage."""
        return staged_features(self.stages, self._scaled(pixels_BCHW))

    def distance(self, pixels_BGCHW: Tensor, reference: list[Tensor]) -> Tensor:
        """Distance float32 [B, G] to the source images of `reference`; 0 for equal images."""
        return staged_distance(self.stages, self.heads, self._scaled(pixels_BGCHW.flatten(0, 1)), reference)

    def distance_map(self, pixels_BGCHW: Tensor, reference: list[Tensor], grid_size: int) -> Tensor:
        """The distance at each place, float32 [B, G, grid_size²]; its mean over the grid is `distance`."""
        images_NCHW = self._scaled(pixels_BGCHW.flatten(0, 1))
        return staged_distance_map(self.stages, self.heads, images_NCHW, reference, grid_size)

    def _scaled(self, pixels_NCHW: Tensor) -> Tensor:
        scaled_NCHW = self.scaling(pixels_NCHW.to(self.scaling.shift.dtype))
        return scaled_NCHW.contiguous(memory_format=torch.channels_last)


def missing_trunk(spec: LpipsSpec) -> str | None:
    """Why the trunk's file is missing, in one sentence, or None. Needs neither network nor weights.

    A trunk that torchvision could still download counts as missing.
    """
    path, url = _trunk_file(spec), TRUNK_URLS[spec.net]
    if path.is_file():
        return None
    if spec.trunk is not None:
        return f"perceptual.trunk names {path}, which is not a file (torchvision's is {url})."
    return (
        f"The {spec.net} trunk of LPIPS is missing: a run downloads {path.name} from {url} to {path.parent} "
        "itself; without network, copy it there, or set perceptual.trunk=PATH to a local copy."
    )


def _trunk_file(spec: LpipsSpec) -> Path:
    if spec.trunk is not None:
        return located(spec.trunk, "perceptual.trunk")
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(TRUNK_URLS[spec.net]).path).name


def obtain_trunk(spec: LpipsSpec) -> Path:
    """The trunk's file, downloaded from torchvision's URL if it is missing and `may_fetch`. CheckpointError."""
    path, url = _trunk_file(spec), TRUNK_URLS[spec.net]
    sentence = missing_trunk(spec)
    if sentence is None:
        return path
    if spec.trunk is not None or not may_fetch():
        raise CheckpointError(sentence)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.split("-")[-1], progress=False)
    except Exception as error:  # refused, unreachable, timed out, disk full, cut off: all for the user to fix
        raise CheckpointError(f"{sentence} The download failed: {error}") from error
    return path


def _read_trunk(spec: LpipsSpec) -> Mapping[str, Tensor]:
    """torchvision's state dict, from the local file or downloaded."""
    path = obtain_trunk(spec)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as a weights file ({type(error).__name__}); "
            f"perceptual.trunk={spec.trunk or 'null'} wants the file of {TRUNK_URLS[spec.net]}."
        ) from error


def _load_trunk(stages: list[nn.Module], trunk: Mapping[str, Tensor], spec: LpipsSpec) -> None:
    """Fill the stages, whose layers keep their numbers N in torchvision's `features.N`."""
    try:
        for stage in stages:
            stage.load_state_dict({name: trunk[f"features.{name}"] for name in stage.state_dict()})
    except (KeyError, RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"{_trunk_file(spec)} is not torchvision's {spec.net} network; perceptual.trunk wants the file "
            f"of {TRUNK_URLS[spec.net]}."
        ) from error
    if sick := not_finite({name: trunk[name] for name in trunk if name.startswith("features.")}):
        raise CheckpointError(
            f"{_trunk_file(spec)} holds NaN or infinity in {sick}; perceptual.trunk wants the file of "
            f"{TRUNK_URLS[spec.net]}."
        )
