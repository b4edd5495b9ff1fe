"""What tests of several rooms share."""

import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest

if not os.environ.get("VAPI_TEST_GPU"):  # tests/README.md
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the same results on a machine with GPUs; before torch looks for them

import torch

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.models.families import build_policy, build_tokenizer
from common.models.image_classifier import ImageClassifier
from common.models.weights_files import save_weights
from deploy.cluster.ray_environment import set_ray_environment
from tests.fake_cuda.gpu import fake_cuda

set_ray_environment()  # before a test imports ray

TINY_RECIPE = {
    "image_size": 32,
    "source": {"kind": "mnist"},
    "tokenizer": {
        "size": {
            "channels": 32,
            "channel_multipliers": [1, 1, 1],
            "num_res_blocks": 1,
            "z_channels": 8,
            "codebook_size": 20,
            "codebook_dim": 4,
        },
        "checkpoint": "tokenizer.safetensors",
    },
    "policy": {
        "size": {"num_layers": 2, "num_heads": 2, "dim": 16, "ffn_multiple": 8},
        "num_classes": 10,
        "checkpoint": "policy.safetensors",
    },
    "perceptual": {"family": "shift_tolerant_lpips"},
    "context": {"noise": 0.5},
    "group": {"size": 4},
    "actors": {"images_per_ticket": 2},
    "learner": {"num_steps": 2, "images_per_step": 4, "micro_batch_size": 2, "lr": 1e-3},
    "metrics": {"port": 0},
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fake-cuda", action="store_true", help="run each test on a GPU that is not there")


@pytest.fixture(autouse=True)
def gpu_that_is_not_there(request: pytest.FixtureRequest) -> Iterator[None]:
    """With `--fake-cuda` alone: an experiment by hand, in which some tests fail (tests/README.md)."""
    with fake_cuda() if request.config.getoption("--fake-cuda") else nullcontext():
        yield


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The number of threads is part of the arithmetic, and idle ones slow the small models down."""
    torch.set_num_threads(1)


@pytest.fixture
def tiny_recipe() -> Recipe:
    """8 x 8 tokens of 20 codes on 32 px digits, groups of 4, models of a few thousand parameters."""
    return Recipe.model_validate(TINY_RECIPE)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights of the tiny recipe's models: tokenizer, policy and classifier.safetensors."""
    folder = tmp_path_factory.mktemp("weights")
    recipe = Recipe.model_validate(TINY_RECIPE)
    torch.manual_seed(0)
    tokenizer = build_tokenizer(recipe.tokenizer, image_size=recipe.image_size)
    policy = build_policy(recipe.policy, codebook_size=tokenizer.codebook_size, grid_size=recipe.grid_size)
    for parameter in policy.parameters():  # LlamaGen starts with a zero output layer: nothing to learn from
        torch.nn.init.normal_(parameter, std=0.2)
    save_weights(tokenizer.state_dict(), folder / "tokenizer.safetensors")
    save_weights(policy.state_dict(), folder / "policy.safetensors")
    save_weights(ImageClassifier(recipe.policy.num_classes).state_dict(), folder / "classifier.safetensors")
    return folder


def run_recipe(weights: Path, folder: Path, name: str, changes: dict[str, Any] | None = None) -> Recipe:
    """Of a run of the tiny models, FOLDER/NAME: five steps of eight images."""
    own = {
        "run.name": name,
        "run.dir": str(folder),
        "tokenizer.checkpoint": str(weights / "tokenizer.safetensors"),
        "policy.checkpoint": str(weights / "policy.safetensors"),
        "reward.classifier_checkpoint": str(weights / "classifier.safetensors"),
        "learner.num_steps": 5,
        "learner.images_per_step": 8,
        "ray.object_store_bytes": 80 << 20,
    }
    return with_changes(Recipe.model_validate(TINY_RECIPE), own | (changes or {}))


@pytest.fixture
def small_run(tiny_weights: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """Makes recipes for runs of the tiny models in a folder of the test's own: small_run(name, changes)."""
    return partial(run_recipe, tiny_weights, tmp_path)


@pytest.fixture
def no_ray() -> Iterator[None]:
    """For a test that starts a Ray of its own in this process, or joins one."""
    import ray

    ray.shutdown()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of random weights of Inception-v3, in the layout of the published ones."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_, **__):
            """Keep the random weights."""

    folder = tmp_path_factory.mktemp("inception")
    torch.save({}, folder / "nothing.pth")
    torch.manual_seed(0)
    network = Untrained("random", ["2048"], feature_extractor_weights_path=str(folder / "nothing.pth"))
    for parameter in network.parameters():
        if parameter.ndim > 1:  # PyTorch's own weights would leave nothing of a picture after so many layers
            torch.nn.init.kaiming_normal_(parameter)
    torch.save(network.state_dict(), folder / "inception.pth")
    return folder / "inception.pth"
