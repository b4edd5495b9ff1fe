"""LPIPS through our trunk loading gives what the `lpips` package gives."""

import warnings
from pathlib import Path
from typing import Literal

import lpips
import pytest
import torch

from common.errors import CheckpointError
from common.models.perceptual.lpips_metric import LpipsMetric, missing_trunk
from common.models.perceptual.spec import LpipsSpec

VGG_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"


def package_metric(net: str) -> lpips.LPIPS:
    torch.manual_seed(1)
    return lpips.LPIPS(net=net, pnet_rand=True, verbose=False)


def save_trunk(metric: lpips.LPIPS, path: Path) -> str:
    """The metric's trunk as torchvision lays it out: sliceK.N.weight is features.N.weight there."""
    trunk = {f"features.{name.split('.', 1)[1]}": value for name, value in metric.net.state_dict().items()}
    torch.save(trunk | {"classifier.6.bias": torch.zeros(1000)}, path)
    return str(path)


def pixels(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_the_distance_is_that_of_the_package(net: Literal["alex", "vgg", "squeeze"], tmp_path: Path) -> None:
    package = package_metric(net)
    metric = LpipsMetric(LpipsSpec(net=net, trunk=save_trunk(package, tmp_path / "trunk.pth")))
    source_BCHW, samples_BGCHW = pixels(2, 3, 48, 40), pixels(2, 3, 3, 48, 40).flip(-1)

    distance_BG = metric.distance(samples_BGCHW, metric.reference_features(source_BCHW))

    with torch.no_grad():
        expected_BG = [
            [package(sample, source).item() for sample in samples]
            for source, samples in zip(source_BCHW, samples_BGCHW, strict=True)
        ]
    assert distance_BG.dtype == torch.float32
    torch.testing.assert_close(distance_BG, torch.tensor(expected_BG), rtol=1e-5, atol=1e-7)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_the_mean_of_the_map_is_the_distance(net: Literal["alex", "vgg", "squeeze"], tmp_path: Path) -> None:
    spec = LpipsSpec(net=net, trunk=save_trunk(package_metric(net), tmp_path / "trunk.pth"))
    metric = LpipsMetric(spec)
    source_BCHW, samples_BGCHW = pixels(2, 3, 64, 64), pixels(2, 3, 3, 64, 64).flip(-1)
    reference = metric.reference_features(source_BCHW)
    map_BGT = metric.distance_map(samples_BGCHW, reference, 8)
    torch.testing.assert_close(map_BGT.mean(-1), metric.distance(samples_BGCHW, reference), rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_building_is_quiet_frozen_and_draws_no_global_random_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trunk = save_trunk(package_metric("squeeze"), tmp_path / "trunk.pth")
    state = torch.get_rng_state()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric = LpipsMetric(LpipsSpec(net="squeeze", trunk=trunk))

    assert torch.equal(torch.get_rng_state(), state)
    assert "".join(capsys.readouterr()) == ""
    assert not metric.training
    assert not any(parameter.requires_grad for parameter in metric.parameters())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_sample_equal_to_its_source_has_distance_zero_and_a_finite_gradient(tmp_path: Path) -> None:
    spec = LpipsSpec(net="squeeze", trunk=save_trunk(package_metric("squeeze"), tmp_path / "trunk.pth"))
    metric = LpipsMetric(spec)
    source_BCHW = pixels(1, 3, 32, 32)
    samples_BGCHW = source_BCHW.unsqueeze(1).clone().requires_grad_()

    distance_BG = metric.distance(samples_BGCHW, metric.reference_features(source_BCHW))
    distance_BG.sum().backward()

    assert distance_BG.tolist() == [[0.0]]
    assert samples_BGCHW.grad is not None
    assert samples_BGCHW.grad.isfinite().all()


def test_a_trunk_at_hand_is_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    cached.parent.mkdir(parents=True)
    cached.touch()

    assert missing_trunk(LpipsSpec(net="alex")) is None
    assert missing_trunk(LpipsSpec(net="vgg", trunk=str(cached))) is None


def test_a_trunk_that_cannot_be_downloaded_is_named_with_its_url_and_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    sentence = (
        f"The vgg trunk of LPIPS is missing: a run downloads vgg16-397923af.pth from {VGG_URL} to "
        f"{tmp_path}/hub/checkpoints itself; without network, copy it there, or set perceptual.trunk=PATH to a "
        "local copy."
    )

    assert missing_trunk(LpipsSpec()) == sentence
    with pytest.raises(CheckpointError) as caught:
        LpipsMetric(LpipsSpec())
    assert str(caught.value) == f"{sentence} The download failed: no route to host"


def test_a_named_trunk_that_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"perceptual\.trunk names .*absent\.pth, which is not a file"):
        LpipsMetric(LpipsSpec(trunk=str(tmp_path / "absent.pth")))


def test_a_file_that_is_no_weights_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<html>")
    with pytest.raises(CheckpointError, match="cannot be read as a weights file"):
        LpipsMetric(LpipsSpec(trunk=str(tmp_path / "page.pth")))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_trunk_of_another_network_is_refused(tmp_path: Path) -> None:
    squeeze = save_trunk(package_metric("squeeze"), tmp_path / "trunk.pth")
    with pytest.raises(CheckpointError, match="is not torchvision's alex network"):
        LpipsMetric(LpipsSpec(net="alex", trunk=squeeze))
