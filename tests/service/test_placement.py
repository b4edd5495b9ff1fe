"""What the cluster cannot place is named while the service waits for it, and in the error at the end."""

from collections.abc import Iterator
from typing import Any

import pytest
import ray

from actors import rollout_pool
from actors.rollout_pool import RolloutPool
from common.errors import ClusterError
from learner import rank_group
from learner.learner_group import LearnerGroup

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=0,
        object_store_memory=80 << 20,
        include_dashboard=False,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


class Told:
    """The events of a run."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def __call__(self, kind: str, **facts: Any) -> None:
        self.events.append({"event": kind} | facts)


def test_a_rank_without_a_gpu_is_reported_before_the_wait_for_it_ends(small_run, monkeypatch) -> None:
    monkeypatch.setattr(rank_group, "OVERDUE_SECONDS", 0.2)
    told = Told()
    label = {"vapi-role": "learner"}
    recipe = small_run("run", {"learner.num_gpus": 1, "learner.label_selector": label})
    learner = LearnerGroup(recipe, on_event=told)
    needs = (
        "1 CPU and 1 GPU on a node with the label vapi-role = learner, and the cluster has 2 CPU and 0 GPU free"
    )
    with pytest.raises(ClusterError) as raised:
        learner.wait_ready(1, lambda: None)
    learner.shutdown()
    assert told.events == [{"event": "rank_pending", "rank": 0, "needs": needs}]
    assert str(raised.value) == (
        f"1 of 1 learner ranks were not ready within 1 s: each needs {needs}; lower learner.num_ranks or what a "
        "rank needs, or add nodes"
    )


def test_an_actor_without_a_node_of_its_label_is_reported_with_the_label(small_run, monkeypatch) -> None:
    monkeypatch.setattr(rollout_pool, "OVERDUE_SECONDS", 0.2)
    told = Told()
    recipe = small_run("run", {"actors.label_selector": {"vapi-role": "reward-actor"}})
    pool = RolloutPool(recipe, told, lambda: None)
    pool.start()
    needs = "1 CPU and 0 GPU on a node with the label vapi-role = reward-actor"
    with pytest.raises(ClusterError, match=f"no reward actor was ready within 1 s: each needs {needs}"):
        pool.wait_ready(1)
    pool.shutdown()
    (pending,) = told.events
    assert (pending["event"], pending["actor"]) == ("actor_pending", "actor-0")
    assert pending["needs"] == f"{needs}, and the cluster has 2 CPU and 0 GPU free"
