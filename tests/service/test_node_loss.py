"""A node goes down in mid-run: what it held is rolled out again, and the run ends as if it had not."""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pytest
import ray
from ray.cluster_utils import Cluster

from actors import rollout_pool
from actors.pool_events import Delivery, LostTicket
from common.types import GroupReceipt
from deploy.runs.local_run import run_local
from deploy.service.driver import train
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
def cluster(monkeypatch) -> Iterator[Cluster]:
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


def test_a_lost_node_takes_only_unfinished_tickets_with_it(small_run, cluster, at_steps):
    nodes = [add_node(cluster), add_node(cluster)]
    buffered: list[int] = []

    def kill_a_node(loop) -> None:
        buffered.append(loop.buffer.num_groups)
        cluster.remove_node(nodes[0], allow_graceful=False)

    at_steps({4: kill_a_node})
    recipe = small_run("node", REWARD_NODES | {"buffer.max_staleness": 2, "learner.num_steps": 30})
    run = train(recipe).folder.path
    assert buffered[0] > 0
    (lost,) = events(run, "actor_lost")
    assert lost["tickets"]
    assert learned_tickets(run) == list(range(30 * recipe.tickets_per_step))
    assert max(line["staleness_max"] for line in lines(run / "metrics.jsonl")) <= 2


@pytest.mark.chaos
def test_at_staleness_0_a_lost_node_leaves_the_weights_of_an_undisturbed_run(small_run, cluster, at_steps):
    nodes = [add_node(cluster), add_node(cluster)]
    at_steps({4: lambda loop: cluster.remove_node(nodes[1], allow_graceful=False)})
    steps = {"learner.num_steps": 8}
    run = train(small_run("node", REWARD_NODES | steps)).folder.path
    assert len(events(run, "actor_lost")) == 1
    assert digest(run) == digest(run_local(small_run("local", steps)).path)


def test_groups_that_no_node_has_any_more_are_a_lost_ticket(cluster):
    node = add_node(cluster)
    ray.init(address=cluster.address)

    @ray.remote(num_cpus=1, label_selector={"role": "reward"}, max_retries=0)
    def roll_out() -> tuple[GroupReceipt, pa.Table]:
        return GroupReceipt(3, 7, 1, 1, (), {}), pa.table({"tokens": np.zeros(1 << 18)})

    kept, lost = (roll_out.options(num_returns=2).remote() for _ in range(2))
    ray.wait([kept[1]], fetch_local=True)
    ray.get(lost[0])
    delivery = rollout_pool._result("actor-0", kept[1], rollout_pool._Call(0.0, 3, 7, kept[0]))
    cluster.remove_node(node, allow_graceful=False)
    event = rollout_pool._result("actor-0", lost[1], rollout_pool._Call(0.0, 3, 7, lost[0]))
    assert event == LostTicket("actor-0", 3, 7, "groups")
    assert isinstance(delivery, Delivery)
    assert ray.get(delivery.groups).num_rows == 1 << 18  # this node had fetched them


def test_lost_groups_are_rolled_again_and_lost_weights_are_published_again(small_run, monkeypatch):
    """The pool says that tickets 5 and 9 were lost; the driver cannot know better."""
    lose: dict[int, str] = {5: "groups", 9: "weights"}
    collect: Callable = rollout_pool.RolloutPool.collect

    def losing(pool):
        for event in collect(pool):
            ticket = event.receipt.ticket_id if isinstance(event, Delivery) else -1
            if ticket in lose:
                yield LostTicket(event.actor, ticket, event.receipt.policy_version, lose.pop(ticket))
            else:
                yield event

    monkeypatch.setattr(rollout_pool.RolloutPool, "collect", losing)
    run = train(small_run("lost")).folder.path
    assert [(event["ticket"], event["reason"]) for event in events(run, "ticket_dropped")] == [
        (5, "groups lost with a node"),
        (9, "weights lost with a node"),
    ]
    assert learned_tickets(run) == list(range(5 * 4))
    assert digest(run) == digest(run_local(small_run("local")).path)
