"""The pool of reward actors, on a stand-in for Ray: who works, who is lost, and who takes over."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from actors.pool_events import ChunkDone, Delivery, LostActor, LostTicket, PoolEvent, PublishedPolicy
from actors.rollout_actor import ActorDescription, ActorJob, WeightsLostError
from actors.rollout_pool import RolloutPool
from common.buffer.ledger import Ledger
from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import ClusterError, DataError
from common.facts import ActorJoined, ActorLeft, ActorLost, ActorPending
from common.paths import code_fingerprint
from common.types import GroupReceipt, WorkTicket
from tests.fakes import NEVER, DiesError, FakeRay, Late, Told

PUBLISHED = PublishedPolicy(3, "the weights of version 3")
HERE = ActorDescription("node-a", 7, "cpu", code_fingerprint())
NEEDS = "1 CPU and 0 GPU, and the cluster has 2 CPU and 0 GPU free"


class Actor:
    """Answers at once."""

    def __init__(self, recipe: Recipe, name: str, job: ActorJob):
        self.name = name

    def describe(self) -> ActorDescription:
        return HERE

    def read_ahead(self, sample_indices: tuple[int, ...]) -> None:
        pass

    def fetch_ahead(self, version: int, snapshot: list[Any]) -> None:
        pass

    def roll_out(self, ticket: WorkTicket, version: int, snapshot: list[Any]) -> tuple[GroupReceipt, str]:
        return receipt(ticket.ticket_id, version), f"groups of ticket {ticket.ticket_id}"

    def evaluate(self, chunk: str, version: int, snapshot: list[Any]) -> tuple[str, None]:
        return f"{chunk} under version {version}", None


def receipt(ticket_id: int, version: int = 3) -> GroupReceipt:
    return GroupReceipt(ticket_id, version, num_groups=2, num_bytes=64, skipped=(), stage_seconds={})


def ticket(ticket_id: int) -> WorkTicket:
    return WorkTicket(ticket_id, (2 * ticket_id, 2 * ticket_id + 1))


def late(seconds: float, ticket_id: int) -> Late:
    return Late(seconds, (receipt(ticket_id), f"groups of ticket {ticket_id}"))


@dataclass
class Stage:
    ray: FakeRay
    told: Told
    pool: RolloutPool

    def submit(self, *ticket_ids: int) -> list[str]:
        """Each to the actor that is free for it; their names."""
        free = self.pool.free_actors(PUBLISHED)
        names = []
        for ticket_id in ticket_ids:
            names.append(next(free))
            self.pool.submit(names[-1], ticket(ticket_id), PUBLISHED)
        return names

    def collect_at(self, second: float) -> list[PoolEvent]:
        self.ray.now = second
        return self.pool.collect()


Start = Callable[..., Stage]


@pytest.fixture
def start(tiny_recipe: Recipe) -> Start:
    """start(count, ray, actor, changes of `actors`): a pool that has asked for its actors."""

    def make(count: int = 1, ray: FakeRay | None = None, actor: type = Actor, **changes: Any) -> Stage:
        ray, told = ray or FakeRay(), Told()
        own = {"count": count} | changes
        recipe = with_changes(tiny_recipe, {f"actors.{key}": value for key, value in own.items()})
        pool = RolloutPool(recipe, told, lambda: None, ray, actor)
        pool.resize(count)
        return Stage(ray, told, pool)

    return make


@pytest.fixture
def ready(start: Start) -> Start:
    """As `start`, with the actors there."""

    def make(*arguments: Any, **changes: Any) -> Stage:
        stage = start(*arguments, **changes)
        stage.pool.wait_ready(60)
        return stage

    return make


def test_actors_are_asked_for_with_what_they_need_and_join_once_they_have_described_themselves(
    start: Start,
) -> None:
    stage = start(2, num_cpus=0.5, num_gpus=1, label_selector={"vapi-role": "reward"})
    assert [fake.options for fake in stage.ray.actors] == [
        {"num_cpus": 0.5, "num_gpus": 1, "label_selector": {"vapi-role": "reward"}}
    ] * 2
    assert (len(stage.pool), stage.pool.num_wanted, len(stage.pool.waiting_for())) == (0, 2, 2)
    stage.pool.wait_ready(60)
    assert (len(stage.pool), stage.pool.num_wanted, stage.pool.waiting_for()) == (2, 2, [])
    assert stage.told.facts == [
        ActorJoined("actor-0", "node-a", 7, "cpu"),
        ActorJoined("actor-1", "node-a", 7, "cpu"),
    ]
    assert stage.pool.states()["actor-1"] == {
        "node": "node-a",
        "code": code_fingerprint(),
        "calls": 0,
        "is_leaving": False,
    }


def test_an_actor_that_runs_other_code_is_refused(start: Start) -> None:
    class Other(Actor):
        def describe(self) -> ActorDescription:
            return ActorDescription("node-b", 7, "cpu", "0123456789ab")

    with pytest.raises(ClusterError) as raised:
        start(actor=Other).pool.wait_ready(60)
    assert str(raised.value) == (
        f"actor-0 on node-b runs code 0123456789ab, the driver {code_fingerprint()}: submit the job with "
        "--working-dir so that every node gets this checkout"
    )


def test_tickets_go_to_the_least_busy_and_nobody_holds_more_than_tickets_in_flight(ready: Start) -> None:
    stage = ready(2, tickets_in_flight=2)
    stage.ray.instead |= {(actor, "roll_out", call): Late(NEVER) for actor in (0, 1) for call in (0, 1)}
    assert stage.submit(0, 1, 2, 3) == ["actor-0", "actor-1", "actor-0", "actor-1"]
    assert next(stage.pool.free_actors(PUBLISHED), None) is None
    assert [state["calls"] for state in stage.pool.states().values()] == [2, 2]
    assert len(stage.pool.waiting_for()) == 4


def test_an_actor_is_given_the_weights_by_reference_and_reads_ahead_for_a_ticket_that_waits(ready: Start) -> None:
    stage = ready()
    stage.submit(0, 1)
    assert stage.ray.actors[0].asked == [
        ("describe", ()),
        ("roll_out", (ticket(0), 3, ["the weights of version 3"])),
        ("read_ahead", ((2, 3),)),
        ("roll_out", (ticket(1), 3, ["the weights of version 3"])),
    ]


def test_who_is_ready_and_stays_is_told_to_fetch_weights_ahead(ready: Start) -> None:
    stage = ready(3)
    stage.ray.instead[0, "roll_out", 0] = Late(NEVER)
    stage.submit(0)
    stage.pool.resize(2)  # one that has nothing to do leaves
    stage.pool.fetch_ahead(PUBLISHED)
    asked = ("fetch_ahead", (3, ["the weights of version 3"]))
    stage.pool.fetch_ahead(PublishedPolicy(4, None))  # which nobody needs to fetch
    assert [actor.asked.count(asked) for actor in stage.ray.actors] == [1, 0, 1]
    assert [name for actor in stage.ray.actors for name, _ in actor.asked].count("fetch_ahead") == 2


def test_a_finished_ticket_is_delivered_with_its_groups_once(ready: Start) -> None:
    stage = ready()
    stage.ray.instead[0, "roll_out", 1] = late(5, 1)
    stage.submit(0, 1)
    (delivery,) = stage.pool.collect()
    assert isinstance(delivery, Delivery)
    assert (delivery.actor, delivery.receipt, delivery.table) == ("actor-0", receipt(0), "groups of ticket 0")
    assert stage.ray.get(delivery.groups) == "groups of ticket 0"
    assert stage.collect_at(4.9) == []
    assert [event.receipt.ticket_id for event in stage.collect_at(5)] == [1]
    assert stage.pool.collect() == []
    assert next(stage.pool.free_actors(PUBLISHED)) == "actor-0"


def test_an_actor_that_dies_is_lost_with_its_tickets_and_replaced_under_a_new_name(ready: Start) -> None:
    stage = ready(max_restarts=1)
    stage.ray.instead |= {(0, "roll_out", 0): late(5, 0), (0, "roll_out", 1): late(5, 1)}
    stage.submit(0, 1)
    stage.ray.bury(stage.ray.actors[0], "out of memory")
    assert stage.pool.collect() == [LostActor("actor-0", "out of memory")]
    assert stage.pool.num_restarts == 1
    assert stage.ray.killed == [stage.ray.actors[0]]
    assert (len(stage.pool), stage.pool.num_wanted) == (0, 1)
    assert stage.pool.collect() == []  # the other ticket's error is no news
    assert list(stage.pool.states()) == ["actor-1"]
    assert [fact.actor for fact in stage.told.of(ActorJoined)] == ["actor-0", "actor-1"]
    assert stage.told.of(ActorLost) == []  # the driver tells, which knows the tickets


def test_what_an_actor_finished_before_it_died_is_delivered(ready: Start) -> None:
    stage = ready()
    stage.ray.instead[0, "roll_out", 1] = DiesError("killed")
    stage.submit(0, 1)
    delivery, lost = stage.pool.collect()
    assert isinstance(delivery, Delivery)
    assert delivery.receipt.ticket_id == 0
    assert lost == LostActor("actor-0", "killed")


def test_an_actor_that_hangs_is_lost_after_the_time_of_the_tickets_it_may_hold(ready: Start) -> None:
    stage = ready(ticket_timeout_seconds=20, tickets_in_flight=2)
    stage.ray.instead[0, "roll_out", 0] = Late(NEVER)
    stage.submit(0)
    assert stage.collect_at(40) == []
    assert stage.collect_at(40.5) == [LostActor("actor-0", "actor-0 has not answered for 40 s")]
    assert stage.ray.killed == [stage.ray.actors[0]]
    assert stage.pool.num_restarts == 1
    assert stage.pool.collect() == []
    assert list(stage.pool.states()) == ["actor-1"]


def test_what_a_lost_actor_answers_after_all_is_its_own_delivery_and_the_ledger_refuses_it(ready: Start) -> None:
    stage = ready(ticket_timeout_seconds=20, tickets_in_flight=1)
    ledger = Ledger(num_steps=1, tickets_per_step=1, samples_per_ticket=2, max_staleness=0)
    stage.ray.kills_work = False
    stage.ray.instead[0, "roll_out", 0] = late(25, 0)
    stage.ray.instead[1, "roll_out", 0] = late(10, 0)
    ledger.admit("actor-0")
    stage.submit(0)
    assert stage.collect_at(21) == [LostActor("actor-0", "actor-0 has not answered for 20 s")]
    assert ledger.revoke("actor-0") == [0]
    stage.pool.collect()
    ledger.admit("actor-1")
    assert stage.submit(0) == ["actor-1"]
    late_one, own = stage.collect_at(25) + stage.collect_at(31)
    assert isinstance(late_one, Delivery)
    assert isinstance(own, Delivery)
    assert (late_one.actor, own.actor) == ("actor-0", "actor-1")
    assert ledger.deliver(0, late_one.actor, 3) is False
    assert ledger.deliver(0, own.actor, 3) is True


def test_what_the_calls_of_a_lost_actor_fail_with_is_no_news(ready: Start) -> None:
    stage = ready(ticket_timeout_seconds=20, tickets_in_flight=1)
    stage.ray.kills_work = False
    stage.ray.instead[0, "roll_out", 0] = Late(25, RuntimeError("a bug"))
    stage.submit(0)
    stage.collect_at(21)
    assert stage.collect_at(25) == []


def test_groups_that_no_node_has_any_more_are_a_lost_ticket_of_an_actor_that_stays(ready: Start) -> None:
    stage = ready()
    stage.submit(5)
    (groups,) = stage.pool.waiting_for()
    stage.ray.lose(groups)
    assert stage.pool.collect() == [LostTicket("actor-0", 5, 3, "groups")]
    assert (len(stage.pool), stage.pool.num_restarts) == (1, 0)
    assert stage.pool.waiting_for() == []


def test_weights_that_no_node_has_any_more_are_a_lost_ticket_of_an_actor_that_stays(ready: Start) -> None:
    stage = ready()
    stage.ray.instead[0, "roll_out", 0] = WeightsLostError("policy version 3 was lost with a node")
    stage.submit(5)
    assert stage.pool.collect() == [LostTicket("actor-0", 5, 3, "weights")]
    assert (len(stage.pool), stage.pool.num_restarts) == (1, 0)


@pytest.mark.parametrize("method", ["describe", "roll_out", "evaluate"])
def test_what_an_actor_raises_is_raised(start: Start, method: str) -> None:
    ray = FakeRay()
    ray.instead[0, method, 0] = DataError("the data set is gone")
    stage = start(1, ray)
    with pytest.raises(DataError, match="the data set is gone"):
        work(stage)


def work(stage: Stage) -> None:
    stage.pool.wait_ready(60)
    stage.submit(0)
    stage.pool.submit_chunk("actor-0", 0, "chunk", PUBLISHED)
    stage.pool.collect()


def test_actors_that_are_added_load_while_the_others_work(ready: Start) -> None:
    stage = ready()
    stage.ray.instead[1, "describe", 0] = Late(20, HERE)
    stage.pool.resize(2)
    assert (len(stage.pool), stage.pool.num_wanted) == (1, 2)
    assert stage.submit(0, 1) == ["actor-0", "actor-0"]
    assert [type(event) for event in stage.collect_at(19)] == [Delivery, Delivery]
    assert len(stage.pool) == 1
    stage.collect_at(20)
    assert len(stage.pool) == 2


def test_an_actor_that_leaves_gets_no_more_and_finishes_what_it_has_first(ready: Start) -> None:
    stage = ready()
    stage.ray.instead[0, "roll_out", 0] = late(5, 0)
    stage.submit(0)
    stage.pool.resize(0)
    assert (len(stage.pool), stage.pool.num_wanted) == (1, 0)
    assert stage.pool.states()["actor-0"]["is_leaving"] is True
    assert next(stage.pool.free_actors(PUBLISHED), None) is None
    assert stage.collect_at(4) == []
    assert stage.told.of(ActorLeft) == []
    assert [event.receipt.ticket_id for event in stage.collect_at(5)] == [0]
    assert stage.told.of(ActorLeft) == [ActorLeft("actor-0")]
    assert stage.ray.killed == [stage.ray.actors[0]]
    assert (len(stage.pool), stage.pool.num_restarts) == (0, 0)


def test_an_actor_that_leaves_stays_where_more_are_wanted_again(ready: Start) -> None:
    stage = ready(2)
    stage.ray.instead |= {(actor, "roll_out", 0): late(5, actor) for actor in (0, 1)}
    stage.submit(0, 1)
    stage.pool.resize(0)
    stage.pool.resize(1)
    assert stage.pool.num_wanted == 1
    assert [state["is_leaving"] for state in stage.pool.states().values()] == [False, True]
    stage.pool.resize(3)
    assert [state["is_leaving"] for state in stage.pool.states().values()] == [False, False, False]
    assert len(stage.ray.actors) == 3


def test_who_is_not_ready_leaves_first_and_then_who_is_least_busy(ready: Start) -> None:
    stage = ready(2)
    stage.ray.instead |= {(0, "roll_out", 0): Late(NEVER), (2, "describe", 0): Late(NEVER)}
    assert stage.submit(0) == ["actor-0"]
    stage.pool.resize(3)
    stage.pool.resize(2)
    stage.pool.collect()
    assert stage.told.of(ActorLeft) == [ActorLeft("actor-2")]
    stage.pool.resize(1)
    stage.pool.collect()
    assert stage.told.of(ActorLeft) == [ActorLeft("actor-2"), ActorLeft("actor-1")]


def test_an_actor_that_dies_while_it_leaves_is_not_replaced(ready: Start) -> None:
    stage = ready()
    stage.ray.instead[0, "roll_out", 0] = late(5, 0)
    stage.submit(0)
    stage.pool.resize(0)
    stage.ray.bury(stage.ray.actors[0], "killed")
    assert stage.pool.collect() == [LostActor("actor-0", "killed")]
    assert (stage.pool.states(), stage.pool.num_restarts, len(stage.ray.actors)) == ({}, 0, 1)


def test_more_losses_than_max_restarts_end_the_run(ready: Start) -> None:
    stage = ready(max_restarts=1)
    stage.ray.instead |= {(actor, "roll_out", 0): DiesError("killed") for actor in (0, 1)}
    stage.submit(0)
    stage.pool.collect()
    stage.pool.collect()
    stage.submit(0)
    with pytest.raises(ClusterError) as raised:
        stage.pool.collect()
    assert str(raised.value) == (
        "2 reward actors were lost, more than actors.max_restarts (1): see events.jsonl for the reasons"
    )


def test_an_actor_that_is_not_ready_for_30_s_is_reported_once_with_what_it_waits_for(ready: Start) -> None:
    stage = ready(1, FakeRay({"CPU": 2.0, "GPU": 3.0}), num_gpus=0.5, label_selector={"role": "reward"})
    stage.ray.instead[1, "describe", 0] = Late(90, HERE)
    stage.ray.now = 100
    stage.pool.resize(2)
    for second in (129, 130, 160):
        stage.collect_at(second)
        assert len(stage.told.of(ActorPending)) == (second >= 130)
    assert stage.told.of(ActorPending) == [
        ActorPending(
            "actor-1",
            "1 CPU and 0.5 GPU on a node with the label role = reward, and the cluster has 2 CPU and 3 GPU free",
        )
    ]
    stage.collect_at(190)
    assert [fact.actor for fact in stage.told.of(ActorJoined)] == ["actor-0", "actor-1"]


def test_where_no_actor_is_ready_in_time_the_error_says_what_each_needs(start: Start) -> None:
    ray = FakeRay()
    ray.instead |= {(actor, "describe", 0): Late(NEVER) for actor in (0, 1)}
    stage = start(2, ray)
    with pytest.raises(ClusterError) as raised:
        stage.pool.wait_ready(100)
    assert str(raised.value) == (
        f"no reward actor was ready within 100 s: each needs {NEEDS}; lower actors.count (2) or what they need, "
        "or add nodes"
    )
    assert 100 < ray.now <= 101
    assert stage.told.facts == [ActorPending("actor-0", NEEDS), ActorPending("actor-1", NEEDS)]


@pytest.mark.parametrize(("second", "num_ready", "at"), [(35.0, 2, 35.0), (50.0, 1, 41.0)])
def test_once_one_is_ready_the_others_are_waited_for_30_s_more(
    start: Start, second: float, num_ready: int, at: float
) -> None:
    ray = FakeRay()
    ray.instead |= {(0, "describe", 0): Late(10, HERE), (1, "describe", 0): Late(second, HERE)}
    stage = start(2, ray)
    stage.pool.wait_ready(20)
    assert len(stage.pool) == num_ready
    assert ray.now == pytest.approx(at, abs=0.6)


def test_an_actor_that_dies_while_it_loads_is_told_of_and_replaced(start: Start) -> None:
    class CannotLoad(Actor):
        def __init__(self, recipe: Recipe, name: str, job: ActorJob):
            if name == "actor-0":
                raise DataError("no such file")

    stage = start(actor=CannotLoad)
    stage.pool.wait_ready(60)
    assert stage.told.facts == [
        ActorLost("actor-0", "DataError: no such file", []),
        ActorJoined("actor-1", "node-a", 7, "cpu"),
    ]
    assert stage.pool.num_restarts == 1


def test_long_waits_let_the_caller_do_something_now_and_then(tiny_recipe: Recipe) -> None:
    ray, beats = FakeRay(), []
    ray.instead |= {(0, "describe", 0): Late(2, HERE), (0, "evaluate", 0): Late(3, ("scores", None))}
    pool = RolloutPool(tiny_recipe, Told(), lambda: beats.append(ray.now), ray, Actor)
    pool.resize(1)
    pool.wait_ready(60)
    assert beats == [0, 0.5, 1, 1.5]
    beats.clear()
    assert list(pool.evaluate(["chunk"], PUBLISHED)) == [(0, "scores")]
    assert beats == [2, 2.5, 3, 3.5, 4, 4.5]


def test_a_chunk_is_done_under_the_weights_that_it_is_given_with(ready: Start) -> None:
    stage = ready()
    stage.pool.submit_chunk("actor-0", 4, "chunk e", PublishedPolicy(1, "the weights of version 1"))
    assert stage.pool.states()["actor-0"]["calls"] == 1
    assert stage.pool.collect() == [ChunkDone("actor-0", 4, "chunk e under version 1")]
    assert stage.ray.actors[0].asked[-1] == ("evaluate", ("chunk e", 1, ["the weights of version 1"]))


@pytest.mark.parametrize("count", [1, 2])
def test_an_evaluation_gives_the_result_of_each_chunk_however_many_do_them(ready: Start, count: int) -> None:
    stage = ready(count)
    done = dict(stage.pool.evaluate(["a", "b", "c"], PUBLISHED))
    assert done == {0: "a under version 3", 1: "b under version 3", 2: "c under version 3"}
    assert [fake.asked.count(("evaluate", ("b", 3, [PUBLISHED.snapshot]))) for fake in stage.ray.actors] == (
        [1] if count == 1 else [0, 1]
    )


def test_an_evaluation_gives_results_as_they_come_and_an_actor_one_chunk_at_a_time(ready: Start) -> None:
    stage = ready(2)
    stage.ray.instead[0, "evaluate", 0] = Late(10, ("a at last", None))
    assert [index for index, _ in stage.pool.evaluate(["a", "b", "c", "d"], PUBLISHED)] == [1, 2, 3, 0]
    assert [name for name, _ in stage.ray.actors[0].asked] == ["describe", "evaluate"]


def test_the_chunk_of_an_actor_that_dies_is_done_by_another(ready: Start) -> None:
    stage = ready(2)
    stage.ray.instead[0, "evaluate", 0] = DiesError("killed")
    assert sorted(stage.pool.evaluate(["a", "b", "c"], PUBLISHED)) == [
        (0, "a under version 3"),
        (1, "b under version 3"),
        (2, "c under version 3"),
    ]
    assert stage.told.of(ActorLost) == [ActorLost("actor-0", "killed", [])]


def test_the_chunk_of_an_actor_that_hangs_is_done_by_its_replacement_and_its_own_answer_is_dropped(
    ready: Start,
) -> None:
    stage = ready(ticket_timeout_seconds=20, tickets_in_flight=1)
    stage.ray.kills_work = False
    stage.ray.instead |= {
        (0, "evaluate", 0): Late(22, ("late", None)),
        (1, "evaluate", 0): Late(5, ("in time", None)),
    }
    assert list(stage.pool.evaluate(["a"], PUBLISHED)) == [(0, "in time")]
    assert stage.told.of(ActorLost) == [ActorLost("actor-0", "actor-0 has not answered for 20 s", [])]


def test_a_shutdown_kills_every_actor(start: Start) -> None:
    ray = FakeRay()
    ray.instead[1, "describe", 0] = Late(NEVER)
    stage = start(2, ray)
    stage.pool.collect()
    stage.pool.shutdown()
    assert ray.killed == ray.actors
    assert (len(ray.killed), len(stage.pool), stage.pool.waiting_for()) == (2, 0, [])


def test_many_actors_are_asked_for_in_waves(tiny_recipe: Recipe) -> None:
    ray = FakeRay({"CPU": 100.0})
    pool = RolloutPool(tiny_recipe, Told(), lambda: None, ray, Actor)
    pool.resize(100)
    assert (len(ray.actors), pool.num_wanted) == (32, 100)
    pool.wait_ready(60)
    assert (len(ray.actors), len(pool)) == (100, 100)
