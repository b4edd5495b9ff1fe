"""Actors that only draw: what they load, and that they draw what this process would. On a stand-in for Ray."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from actors.evaluation.chunks import GenerateChunk, GeneratedPictures
from actors.pool_events import PublishedPolicy
from actors.rollout_actor import ActorJob
from actors.rollout_pool import RolloutPool
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.models.families import PolicyModule, build_policy
from common.models.llamagen.transformer import LlamaGenTransformer
from common.models.weights_files import save_weights
from deploy.sampling.actors import OWN_WEIGHTS
from tests.deploy.sampling.conftest import InProcess
from tests.fakes import FakeRay, Told

CHUNKS = [GenerateChunk((0, 1), seed=3, temperature=1.0), GenerateChunk((2,), seed=3, temperature=1.0)]


class Loads:
    """What was loaded for the actors, and compiled."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.metrics: list[Recipe] = []
        self.compiled: list[PolicyModule] = []
        monkeypatch.setattr("actors.ticket_work.load_perceptual_metric", self._metric)
        monkeypatch.setattr(LlamaGenTransformer, "compile_blocks", lambda policy: self.compiled.append(policy))
        monkeypatch.setattr("common.models.loading.require_compiler", lambda _: None)

    def _metric(self, recipe: Recipe, _: torch.device) -> Any:
        self.metrics.append(recipe)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    return Loads(monkeypatch)


@pytest.fixture
def costly(recipe: Recipe) -> Recipe:
    """With a metric, a compiler and two actors."""
    return with_changes(recipe, {"reward.lpips": 1, "compute.compile": True, "actors.count": 2})


@pytest.fixture
def drawn() -> Callable[[Recipe, ActorJob], dict[int, GeneratedPictures]]:
    def draw(recipe: Recipe, job: ActorJob) -> dict[int, GeneratedPictures]:
        ray = FakeRay()
        pool = RolloutPool(recipe, Told(), lambda: None, ray, job=job)
        pool.resize(recipe.actors.count)
        pool.wait_ready(1.0)
        return dict(pool.evaluate(CHUNKS, PublishedPolicy(OWN_WEIGHTS, ray.put(None))))

    return draw


def test_they_load_no_metric_and_compile_nothing_and_draw_the_same_pictures(
    costly: Recipe, loads: Loads, drawn: Callable[..., dict[int, GeneratedPictures]]
) -> None:
    pictures = drawn(costly, ActorJob(only_draws=True))
    assert (loads.metrics, loads.compiled) == ([], [])
    with InProcess()(costly, Told(), ActorJob()) as run_chunks:
        for index, expected in run_chunks(CHUNKS):
            np.testing.assert_array_equal(pictures[index].pixels_NHWC, expected.pixels_NHWC)
    assert len(pictures) == 2


def test_those_of_a_training_load_the_metric_and_compile(
    costly: Recipe, loads: Loads, drawn: Callable[..., dict[int, GeneratedPictures]]
) -> None:
    drawn(costly, ActorJob())
    assert (len(loads.metrics), len(loads.compiled)) == (2, 2)


def test_they_begin_with_the_weights_of_their_job(
    recipe: Recipe, drawn: Callable[..., dict[int, GeneratedPictures]], tmp_path: Path
) -> None:
    torch.manual_seed(1)
    other = build_policy(recipe.policy, codebook_size=20, grid_size=recipe.grid_size)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    checkpoint = str(tmp_path / "other.safetensors")
    save_weights(other.state_dict(), checkpoint)
    pictures = drawn(recipe, ActorJob(checkpoint, only_draws=True))
    expected = drawn(with_changes(recipe, {"policy.checkpoint": checkpoint}), ActorJob(only_draws=True))
    base = drawn(recipe, ActorJob(only_draws=True))
    for index in range(2):
        np.testing.assert_array_equal(pictures[index].pixels_NHWC, expected[index].pixels_NHWC)
    assert (pictures[0].pixels_NHWC != base[0].pixels_NHWC).any()


def test_decoding_is_compiled_where_the_recipe_says_so(
    drawn: Callable[[Recipe, ActorJob], dict[int, GeneratedPictures]], recipe: Recipe, monkeypatch
) -> None:
    compiled: list[LlamaGenTransformer] = []
    monkeypatch.setattr(LlamaGenTransformer, "compile_decoding", lambda policy: compiled.append(policy))
    drawn(recipe, ActorJob(only_draws=True))
    assert compiled == []
    drawn(with_changes(recipe, {"sampling.compile": True}), ActorJob(only_draws=True))
    assert len(compiled) == 1
