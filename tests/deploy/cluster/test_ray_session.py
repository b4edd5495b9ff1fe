"""The size of a local Ray that is started for a run."""

from typing import Any

import pytest
import ray

from common.config.load import with_changes
from common.config.recipe import Recipe
from deploy.cluster.ray_session import RaySession


@pytest.mark.parametrize(
    ("changes", "num_cpus"),
    [
        ({}, 1 + 60 + 1),
        ({"reward.actors.count": 2}, 1 + 60 + 2 * 3 + 1),
        ({"actors.autoscale": {"max": 4}}, 4 + 60 + 1),
        ({"reward.actors.count": 2, "reward.actors.autoscale": {"max": 5}}, 1 + 60 + 5 * 3 + 1),
    ],
)
def test_a_local_ray_has_the_cpus_of_all_processes_that_there_may_come_to_be(
    changes: dict[str, Any], num_cpus: int, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(ray, "init", lambda **options: asked.append(options))
    monkeypatch.setattr(ray, "cluster_resources", dict)
    monkeypatch.setattr(ray, "nodes", list)
    usual = {"reward.python": "tests.own_terms:term", "reward.actors.num_cpus": 3, "learner.num_cpus": 60}
    RaySession().open(with_changes(tiny_recipe, usual | changes))
    assert [options["num_cpus"] for options in asked] == [num_cpus]
