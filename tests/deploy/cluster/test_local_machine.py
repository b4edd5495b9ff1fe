"""A local Ray is not started for what this machine can never give."""

from typing import Any

import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import ClusterError
from deploy.cluster.local_machine import memory_bytes, problems, require_local

JUDGES = {"reward.python": "tests.own_terms:term", "reward.actors.count": 2}


@pytest.mark.parametrize(
    ("changes", "num_gpus", "words"),
    [
        ({"ray.object_store_bytes": 10**10 + 1}, 0, "ray.object_store_bytes is 10000000001, and this machine has"),
        ({"learner.num_gpus": 1}, 0, "take 1 GPUs, and this machine has 0: lower them, or join a cluster"),
        ({"actors.count": 3, "actors.num_gpus": 0.4}, 1, "take 2 GPUs, and this machine has 1"),
        ({"actors.count": 2, "actors.num_gpus": 1, "learner.num_gpus": 1}, 2, "take 3 GPUs"),
        ({"actors.count": 2, "actors.num_gpus": 0.4, "learner.num_gpus": 0.6}, 1, "take 2 GPUs"),
        ({"actors.count": 1, "actors.num_gpus": 1, "learner.num_gpus": 0.5}, 1, "take 2 GPUs"),
        (JUDGES | {"actors.num_gpus": 1, "reward.actors.num_gpus": 0.5}, 1, "take 2 GPUs"),
        (
            JUDGES | {"actors.num_gpus": 1, "reward.actors.num_gpus": 1},
            1,
            "actors.num_gpus 1, reward.actors.count 2 with reward.actors.num_gpus 1 and learner.num_ranks 1",
        ),
        (
            JUDGES | {"compute.device": "cuda", "actors.num_gpus": 1, "learner.num_gpus": 1},
            2,
            "compute.device is cuda, and reward.actors.num_gpus 0",
        ),
        ({"compute.device": "cuda"}, 0, "compute.device is cuda, and actors.num_gpus and learner.num_gpus 0"),
        ({"compute.device": "cuda", "actors.num_gpus": 0.5}, 1, "compute.device is cuda, and learner.num_gpus 0"),
    ],
)
def test_what_the_machine_lacks_is_one_sentence(
    tiny_recipe: Recipe, changes: dict[str, Any], num_gpus: int, words: str
) -> None:
    (sentence,) = problems(with_changes(tiny_recipe, changes), True, num_gpus, 10**10)
    assert words in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("changes", "num_gpus"),
    [
        ({"actors.count": 500, "actors.num_cpus": 2}, 0),
        ({"actors.count": 2, "actors.num_gpus": 0.5, "learner.num_gpus": 1, "compute.device": "cuda"}, 2),
        ({"actors.count": 3, "actors.num_gpus": 1 / 3}, 1),
        ({"actors.count": 1, "actors.num_gpus": 0.4, "learner.num_gpus": 0.6}, 1),
        ({"actors.count": 2, "actors.num_gpus": 0.25, "learner.num_gpus": 0.5, "compute.device": "cuda"}, 1),
        ({"actors.count": 5, "actors.num_gpus": 0.3, "learner.num_gpus": 0.4}, 2),
    ],
)
def test_processes_share_cores_and_a_gpu(tiny_recipe: Recipe, changes: dict[str, Any], num_gpus: int) -> None:
    assert problems(with_changes(tiny_recipe, changes), True, num_gpus, 10**10) == []


def test_drawing_needs_no_learner(tiny_recipe: Recipe) -> None:
    assert problems(with_changes(tiny_recipe, {"learner.num_gpus": 4}), False, 0, 10**10) == []


def test_a_cluster_may_have_what_this_machine_lacks(tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = with_changes(tiny_recipe, {"ray.object_store_bytes": 1 << 60})
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    require_local(recipe)
    monkeypatch.delenv("RAY_ADDRESS")
    with pytest.raises(ClusterError, match=f"this machine has {memory_bytes()} bytes of memory"):
        require_local(recipe)
