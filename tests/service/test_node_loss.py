"""A node goes down in mid-run: what it held is rolled out again, and the run ends as if it had not."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
from ray.cluster_utils import Cluster

from actors.rollout_actor import RolloutActor
from common.ray_calls_group import RayCalls, ValueLostError
from deploy.runs.local_run import run_local
from deploy.service.driver import Parts, train
from learner.learner_actor import LearnerActor
from tests.service.conftest import Acts
from tests.service.reading import digest, events, learned_tickets, lines

pytestmark = pytest.mark.ray

STORE_BYTES = 80 << 20
NOTICED_SOON = {
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_health_check_initial_delay_ms": "1000",
}


@pytest.fixture
def cluster(monkeypatch, no_ray: None) -> Iterator[Cluster]:
    """A head that the driver is on, with room for the learner; a test adds nodes."""
    for name, value in NOTICED_SOON.items():
        monkeypatch.setenv(name, value)
    head = {
        "num_cpus": 2,
        "object_store_memory": STORE_BYTES,
        "include_dashboard": False,
        "labels": {"role": "head"},
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def add_node(cluster: Cluster):
    return cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES, labels={"role": "reward"})


REWARD_NODES = {"actors.label_selector": {"role": "reward"}, "actors.count": 2}


def actors_that_wait(folder: Path, node_is_up: Path, held_tickets: range) -> dict[str, type]:
    """An actor stops at these tickets while the node is up; the learner learns step 4 once two have.

    Nested, as Ray's processes cannot import this file.
    """

    def wait_for(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.02)

    class Actor(RolloutActor):
        def roll_out(self, ticket, *arguments):
            if ticket.ticket_id in held_tickets:
                (folder / f"held by {os.getpid()}").touch()
                wait_for(lambda: not node_is_up.exists())
            return super().roll_out(ticket, *arguments)

    class Learner(LearnerActor):
        steps = 0

        def train(self, *arguments):
            self.steps += 1
            if self.steps == 4:
                wait_for(lambda: len(list(folder.glob("held by *"))) == 2)
            return super().train(*arguments)

    return {"rollout_actor": Actor, "learner_actor": Learner}


def test_a_lost_node_takes_only_unfinished_tickets_with_it(small_run, cluster, tmp_path):
    """While both actors are at step 6, all groups of step 5 wait in the buffer, and step 4 is learned."""
    nodes = [add_node(cluster), add_node(cluster)]
    recipe = small_run("node", REWARD_NODES | {"buffer.max_staleness": 2, "learner.num_steps": 12})
    node_is_up, buffered = tmp_path / "node_is_up", []
    node_is_up.touch()
    of_step_6 = range(5 * recipe.tickets_per_step, 6 * recipe.tickets_per_step)

    def kill_a_node(fact) -> None:
        buffered.append(fact.groups_buffered)
        cluster.remove_node(nodes[0], allow_graceful=False)
        node_is_up.unlink()

    parts = Parts(sinks=(Acts({4: kill_a_node}),), **actors_that_wait(tmp_path, node_is_up, of_step_6))
    run = train(recipe, parts).folder.path
    assert buffered == [recipe.learner.images_per_step]
    (lost,) = events(run, "actor_lost")
    assert lost["tickets"]
    assert learned_tickets(run) == list(range(12 * recipe.tickets_per_step))
    assert max(line["staleness_max"] for line in lines(run / "metrics.jsonl")) <= 2


@pytest.mark.chaos
def test_at_staleness_0_a_lost_node_leaves_the_weights_of_an_undisturbed_run(small_run, cluster):
    nodes = [add_node(cluster), add_node(cluster)]
    acts = Acts({4: lambda _: cluster.remove_node(nodes[1], allow_graceful=False)})
    steps = {"learner.num_steps": 8}
    run = train(small_run("node", REWARD_NODES | steps), Parts(sinks=(acts,))).folder.path
    assert len(events(run, "actor_lost")) == 1
    assert digest(run) == digest(run_local(small_run("local", steps)).path)


@pytest.mark.chaos
def test_a_value_that_was_fetched_outlives_its_node_and_another_is_lost(cluster):
    node = add_node(cluster)
    ray.init(address=cluster.address)
    calls = RayCalls()

    @ray.remote(num_cpus=1, label_selector={"role": "reward"}, max_retries=0)
    def roll_out() -> tuple[int, pa.Table]:
        return 7, pa.table({"tokens": np.zeros(1 << 18)})

    kept, lost = (roll_out.options(num_returns=2).remote() for _ in range(2))
    calls.get(lost[0])
    assert calls.ready([kept[1]], timeout=30) == [kept[1]]  # which fetches it
    held = calls.get(kept[1])
    cluster.remove_node(node, allow_graceful=False)
    with pytest.raises(ValueLostError):
        calls.get(lost[1])
    assert calls.get(kept[1]).num_rows == held.num_rows == 1 << 18
