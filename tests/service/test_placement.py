"""What the cluster cannot place is named while the service waits for it, and in the error at the end."""

import pytest
from ray.util.placement_group import placement_group_table

from actors import actor_pool
from actors.rollout_pool import RolloutPool
from common.errors import ClusterError
from common.facts import ActorPending, RankPending
from common.ray_calls_group import RayCalls
from learner import rank_group
from learner.learner_group import LearnerGroup
from tests.fakes import Told

pytestmark = pytest.mark.ray


def test_a_rank_without_a_gpu_and_an_actor_without_a_node_of_its_label_are_reported(
    small_run, shared_ray, monkeypatch
) -> None:
    monkeypatch.setattr(rank_group, "OVERDUE_SECONDS", 0.2)
    monkeypatch.setattr(actor_pool, "OVERDUE_SECONDS", 0.2)
    told, calls = Told(), RayCalls()
    recipe = small_run("run", {"learner.num_gpus": 1, "actors.label_selector": {"vapi-role": "reward-actor"}})
    learner, pool = LearnerGroup(recipe, told, calls), RolloutPool(recipe, told, lambda: None, calls)
    pool.resize(1)
    of_a_rank = r"1 CPU and 1 GPU, and the cluster has \d CPU and 0 GPU free"
    with pytest.raises(ClusterError, match=rf"1 of 1 learner ranks were not ready within 1 s: .* {of_a_rank}"):
        learner.wait_ready(1, lambda: None)
    of_an_actor = "1 CPU and 0 GPU on a node with the label vapi-role = reward-actor"
    with pytest.raises(ClusterError, match=f"no reward actor was ready within 1 s: each needs {of_an_actor}"):
        pool.wait_ready(1)
    pool.shutdown()
    learner.shutdown()
    (rank,), (actor,) = told.of(RankPending), told.of(ActorPending)
    assert rank.needs.startswith("1 CPU and 1 GPU, and the cluster has ")
    assert actor.needs.startswith(f"{of_an_actor}, and the cluster has ")


def test_actors_that_are_placed_together_share_a_node_and_leave_their_room(shared_ray: None) -> None:
    class Pet:
        def name(self) -> str:
            return "pet"

    calls = RayCalls()
    room = calls.room_together({"CPU": 1, "GPU": 0}, 2, {})
    pets = [calls.start(Pet, room=room, num_cpus=1, num_gpus=0, label_selector={}) for _ in range(2)]
    assert calls.get([pet.name.remote() for pet in pets], timeout=60) == ["pet", "pet"]
    assert placement_group_table(room)["stats"]["scheduling_state"] == "FINISHED"
    for pet in pets:
        calls.kill(pet)
    calls.leave_room(room)
    assert placement_group_table(room)["state"] == "REMOVED"
