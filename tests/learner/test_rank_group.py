"""The learner's processes, on a stand-in for Ray: who is waited for, who forms the group, who takes over."""

from collections.abc import Callable
from typing import Any

import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import ClusterError, LearnerLostError
from common.facts import RankJoined, RankLost, RankPending
from learner.learner_actor import RankDescription
from learner.peers import PeerLostError
from learner.rank_group import RankGroup
from tests.fakes import NEVER, DiesError, FakeActor, FakeRay, Late, Told
from tests.learner.scripted_rank import ScriptedRank

BROKEN = PeerLostError("Connection closed by peer")


class Stage:
    """A group of ranks that were asked for; `ranks` are all that ever were, in that order."""

    def __init__(self, recipe: Recipe, num_ranks: int, ray: FakeRay | None, changes: dict[str, Any]):
        self.ray, self.told = ray or FakeRay(), Told()
        own = {"num_ranks": num_ranks} | changes
        recipe = with_changes(recipe, {f"learner.{key}": value for key, value in own.items()})
        self.group = RankGroup(recipe, self.told, self.ray, ScriptedRank)

    @property
    def ranks(self) -> list[ScriptedRank]:
        return [fake.self for fake in self.ray.actors]

    @property
    def members(self) -> list[int]:
        return [self.ray.actors.index(actor) for actor in self.group.actors]

    @property
    def places(self) -> list[tuple[Any, ...]]:
        return [rank.place for rank in self.ranks]

    def have_done(self, *steps: int) -> None:
        for rank, done in zip(self.ranks, steps, strict=True):
            rank.steps = done

    def kill(self, *numbers: int) -> None:
        for number in numbers:
            self.ray.bury(self.ray.actors[number], "killed")

    def times_asked(self, number: int, method: str) -> int:
        return [name for name, _ in self.ray.actors[number].asked].count(method)


Start = Callable[..., Stage]


@pytest.fixture
def start(tiny_recipe: Recipe) -> Start:
    """start(number of ranks, ray, changes of `learner`): ranks that were asked for."""
    return lambda num_ranks=2, ray=None, **changes: Stage(tiny_recipe, num_ranks, ray, changes)


@pytest.fixture
def formed(start: Start) -> Start:
    """As `start`, with the group formed."""

    def make(*arguments: Any, **changes: Any) -> Stage:
        stage = start(*arguments, **changes)
        stage.group.wait_ready(60, lambda: None)
        stage.told.facts.clear()
        return stage

    return make


def test_ranks_are_asked_for_with_what_they_need_and_meet_at_the_first(start: Start) -> None:
    stage = start(3, num_cpus=0.5, label_selector={"vapi-role": "learner"})
    assert [fake.options for fake in stage.ray.actors] == [
        {"room": None, "num_cpus": 0.5, "num_gpus": 0, "label_selector": {"vapi-role": "learner"}}
    ] * 3
    stage.group.wait_ready(60, lambda: None)
    assert stage.places == [(0, 3, "host-0", 5000), (1, 3, "host-0", 5000), (2, 3, "host-0", 5000)]
    assert stage.ray.actors[0].asked[1] == ("open_store", (3,))
    assert stage.told.facts == [
        RankJoined(0, 0, "node-a", 100),
        RankJoined(1, 0, "node-a", 101),
        RankJoined(2, 0, "node-a", 102),
    ]
    assert (len(stage.group), stage.members) == (3, [0, 1, 2])
    assert [rank.state for rank in stage.ranks] == ["state of 0", "state of 1", "state of 2"]


def test_a_rank_that_is_not_placed_is_reported_after_30_s_and_named_in_the_error_at_the_end(start: Start) -> None:
    ray = FakeRay()
    ray.instead[1, "describe", 0] = Late(NEVER)
    stage = start(2, ray, num_gpus=1, label_selector={"vapi-role": "learner"})
    needs = (
        "1 CPU and 1 GPU on a node with the label vapi-role = learner, and the cluster has 2 CPU and 0 GPU free"
    )
    beats: list[float] = []
    with pytest.raises(ClusterError) as raised:
        stage.group.wait_ready(100, lambda: beats.append(ray.now))
    assert str(raised.value) == (
        f"1 of 2 learner ranks were not ready within 100 s: each needs {needs}; lower learner.num_ranks or what a "
        "rank needs, or add nodes"
    )
    assert stage.told.facts == [RankPending(1, needs)]
    assert ray.now == 100
    assert beats[:3] == [0, 0.5, 1]


@pytest.mark.parametrize(("seconds", "num_pending"), [(29, 0), (45, 1)])
def test_a_rank_that_takes_its_time_joins(start: Start, seconds: float, num_pending: int) -> None:
    ray = FakeRay()
    ray.instead[1, "describe", 0] = Late(seconds, RankDescription("node-b", 7))
    stage = start(2, ray)
    stage.group.wait_ready(100, lambda: None)
    assert ray.now == seconds
    assert len(stage.told.of(RankPending)) == num_pending
    assert stage.told.of(RankJoined)[1] == RankJoined(1, 0, "node-b", 7)


def test_what_a_rank_fails_with_at_its_start_is_raised_before_a_group_is_formed(start: Start) -> None:
    ray = FakeRay()
    ray.instead[1, "describe", 0] = ClusterError("compute.device is cuda, but this process sees no GPU")
    stage = start(2, ray)
    with pytest.raises(ClusterError, match=r"compute\.device is cuda, but this process sees no GPU"):
        stage.group.wait_ready(60, lambda: None)
    assert stage.times_asked(0, "open_store") == 0


def test_what_the_constructor_of_a_rank_raises_is_said_of_its_death(tiny_recipe: Recipe) -> None:
    class CannotLoad(ScriptedRank):
        def __init__(self, recipe: Recipe, calls: FakeRay):
            raise ClusterError("compute.device is cuda, but this process sees no GPU")

    group = RankGroup(tiny_recipe, Told(), FakeRay(), CannotLoad)
    with pytest.raises(ClusterError, match=r"before the first step: ClusterError: compute\.device is cuda"):
        group.wait_ready(60, lambda: None)


@pytest.mark.parametrize(("dead", "survivor"), [(0, 1), (1, 0)])
def test_who_lives_forms_a_group_without_the_dead_and_a_replacement_is_asked_for(
    formed: Start, dead: int, survivor: int
) -> None:
    stage = formed()
    stage.have_done(4, 4)
    stage.kill(dead)
    assert stage.group.recover(4) == 4
    assert stage.members == [survivor]
    assert stage.ranks[survivor].place == (0, 1, f"host-{survivor}", 5000)
    assert stage.told.facts == [RankLost(dead, "killed", 4, 100 + dead)]
    assert stage.ray.killed == [stage.ray.actors[dead]]
    assert (len(stage.ray.actors), len(stage.group.newcomers)) == (3, 1)
    assert stage.times_asked(survivor, "resume") == 0


def test_the_survivor_that_got_furthest_is_the_first_and_gives_its_state_to_those_behind(formed: Start) -> None:
    stage = formed(4)
    stage.have_done(6, 7, 6, 7)
    stage.kill(3)
    assert stage.group.recover(6) == 7
    assert stage.members == [1, 0, 2]
    assert [stage.ranks[number].place for number in (1, 0, 2)] == [
        (0, 3, "host-1", 5000),
        (1, 3, "host-1", 5000),
        (2, 3, "host-1", 5000),
    ]
    assert [(rank.steps, rank.state) for rank in stage.ranks[:3]] == [(7, "state of 1")] * 3
    assert [stage.times_asked(number, "resume") for number in range(3)] == [1, 0, 1]


def test_survivors_that_are_equally_far_keep_their_order_and_their_state(formed: Start) -> None:
    stage = formed(3)
    stage.have_done(7, 7, 6)
    stage.kill(2)
    assert stage.group.recover(6) == 7
    assert stage.members == [0, 1]
    assert [rank.state for rank in stage.ranks[:2]] == ["state of 0", "state of 1"]


def test_a_rank_that_never_answers_is_given_up_a_minute_after_its_collectives_would_have(formed: Start) -> None:
    stage = formed(collective_timeout_seconds=40)
    stage.ray.instead[1, "step", 0] = Late(NEVER)
    assert stage.group.recover(0) == 0
    assert stage.told.facts == [RankLost(1, "it does not answer", 0, 101)]
    assert stage.ray.now == 100
    assert stage.ray.killed == [stage.ray.actors[1]]
    assert stage.members == [0]


def test_a_rank_that_answers_before_that_stays(formed: Start) -> None:
    stage = formed(collective_timeout_seconds=40)
    stage.ray.instead[1, "step", 0] = Late(99, 0)
    assert stage.group.recover(0) == 0
    assert (stage.members, stage.told.facts) == ([0, 1], [])


def test_without_a_survivor_the_learner_is_lost(formed: Start) -> None:
    stage = formed()
    stage.have_done(6, 6)
    stage.kill(0, 1)
    with pytest.raises(LearnerLostError) as raised:
        stage.group.recover(6)
    assert str(raised.value) == (
        "all 2 learner ranks were lost in step 7 (killed): resume from the newest checkpoint; "
        "events.jsonl has the reasons"
    )
    assert [(fact.rank, fact.step, fact.pid) for fact in stage.told.of(RankLost)] == [(0, 6, 100), (1, 6, 101)]
    assert len(stage.ray.actors) == 2


def test_more_losses_than_max_restarts_end_the_run(formed: Start) -> None:
    stage = formed(3, max_restarts=1)
    stage.kill(2)
    stage.group.recover(0)
    stage.kill(1)
    with pytest.raises(ClusterError) as raised:
        stage.group.recover(0)
    assert str(raised.value) == (
        "2 learner ranks were lost, more than learner.max_restarts (1): see events.jsonl for the reasons"
    )


def test_a_group_that_breaks_while_it_forms_is_formed_again(formed: Start) -> None:
    stage = formed(3)
    stage.ray.instead[1, "join", 1] = BROKEN
    stage.kill(2)
    assert stage.group.recover(0) == 0
    assert stage.members == [0, 1]
    assert stage.places[:2] == [(0, 2, "host-0", 5000), (1, 2, "host-0", 5000)]
    assert stage.times_asked(0, "open_store") == 3
    assert [fact.rank for fact in stage.told.of(RankLost)] == [2]


def test_a_rank_that_dies_while_the_group_forms_is_left_out_too(formed: Start) -> None:
    stage = formed(3)
    stage.ray.instead |= {(0, "join", 1): BROKEN, (1, "join", 1): DiesError("out of memory")}
    stage.kill(2)
    assert stage.group.recover(0) == 0
    assert stage.members == [0]
    assert stage.ranks[0].place == (0, 1, "host-0", 5000)
    assert [(fact.rank, fact.pid) for fact in stage.told.of(RankLost)] == [(2, 102), (1, 101)]


@pytest.mark.parametrize("method", ["open_store", "join"])
def test_a_first_rank_that_hangs_while_the_group_forms_is_left_out(formed: Start, method: str) -> None:
    stage = formed(collective_timeout_seconds=40)
    stage.ray.instead[0, method, 1] = Late(NEVER)
    assert stage.group.recover(0) == 0
    assert stage.members == [1]
    assert stage.told.facts == [RankLost(0, "it does not answer", 0, 100)]
    assert stage.ray.now == 200


def test_a_first_rank_that_dies_while_it_gives_its_state_is_left_out(formed: Start) -> None:
    stage = formed(3)
    stage.have_done(6, 6, 7)
    stage.ray.instead[2, "optimizer_arrays", 0] = DiesError("killed")
    assert stage.group.recover(6) == 6  # nobody else had completed the step
    assert stage.members == [0, 1]
    assert [rank.state for rank in stage.ranks[:2]] == ["state of 0", "state of 1"]


def test_ranks_that_live_and_cannot_form_a_group_end_the_run(formed: Start) -> None:
    stage = formed(max_restarts=2)
    stage.ray.instead |= {(1, "join", call): BROKEN for call in (1, 2, 3)}
    with pytest.raises(ClusterError) as raised:
        stage.group.recover(0)
    assert str(raised.value) == (
        "the learner ranks that live could not form a group in 3 attempts: look at the network between their nodes"
    )
    assert stage.told.facts == []


def test_a_replacement_joins_behind_the_others_once_it_is_ready_with_the_state_of_the_first(formed: Start) -> None:
    stage = formed(2)
    stage.ray.instead[2, "describe", 0] = Late(20, RankDescription("node-b", 7))
    stage.have_done(4, 4)
    stage.kill(0)
    stage.group.recover(4)
    stage.told.facts.clear()
    stage.ray.now = 19
    stage.group.welcome(5)
    assert (stage.members, stage.told.facts) == ([1], [])
    (coming,) = stage.group.newcomers
    assert stage.group.wait([coming], 10) == []
    assert stage.ray.now == 20
    stage.group.welcome(4)
    assert stage.members == [1, 2]
    assert stage.places[1:] == [(0, 2, "host-1", 5000), (1, 2, "host-1", 5000)]
    assert (stage.ranks[2].steps, stage.ranks[2].state) == (4, "state of 1")
    assert stage.told.facts == [RankJoined(1, 4, "node-b", 7)]
    assert stage.group.newcomers == []


def outlived(formed: Start, *arguments: Any, **changes: Any) -> Stage:
    """Two ranks, of which the second died after step 4; its replacement, number 2, is ready to join."""
    stage = formed(*arguments, **changes)
    stage.have_done(4, 4)
    stage.kill(1)
    stage.group.recover(4)
    stage.told.facts.clear()
    return stage


def test_a_replacement_that_cannot_load_is_told_of_without_a_rank_and_replaced(formed: Start) -> None:
    ray = FakeRay()
    ray.instead[2, "describe", 0] = DiesError("no such file")
    stage = outlived(formed, 2, ray)
    stage.group.welcome(4)
    assert stage.told.facts == [RankLost(None, "no such file", 4, None)]
    assert stage.members == [0]
    stage.group.welcome(4)
    assert stage.told.facts[1:] == [RankJoined(1, 4, "node-a", 103)]


def test_replacements_that_cannot_load_count_as_losses(formed: Start) -> None:
    ray = FakeRay()
    ray.instead[2, "describe", 0] = DiesError("no such file")
    stage = outlived(formed, 2, ray, max_restarts=1)
    with pytest.raises(ClusterError, match=r"2 learner ranks were lost, more than learner\.max_restarts \(1\)"):
        stage.group.welcome(4)


@pytest.mark.parametrize("method", ["join", "resume"])
def test_a_replacement_that_dies_while_it_joins_leaves_the_others_as_they_were(formed: Start, method: str) -> None:
    ray = FakeRay()
    ray.instead[2, method, 0] = DiesError("killed")
    stage = outlived(formed, 2, ray)
    stage.group.welcome(4)
    assert (stage.members, stage.ranks[0].place) == ([0], (0, 1, "host-0", 5000))
    assert stage.told.facts == [RankLost(1, "killed", 4, 102)]
    assert len(stage.group.newcomers) == 1


@pytest.mark.parametrize("method", ["join", "optimizer_arrays"])
def test_a_replacement_is_no_survivor_where_those_it_was_to_learn_from_die(formed: Start, method: str) -> None:
    ray = FakeRay()
    stage = outlived(formed, 2, ray)
    ray.instead[0, method, stage.times_asked(0, method)] = DiesError("killed")
    with pytest.raises(LearnerLostError) as raised:
        stage.group.welcome(4)
    assert str(raised.value) == (
        "the learner ranks that had done step 4 were lost before others had their state: resume from the newest "
        "checkpoint; events.jsonl has the reasons"
    )
    assert [(fact.rank, fact.pid) for fact in stage.told.of(RankLost)] == [(0, 100)]
    assert stage.told.of(RankJoined) == []


def test_before_the_first_step_a_replacement_can_go_on_alone(formed: Start) -> None:
    stage = formed(2)
    stage.kill(1)
    stage.group.recover(0)
    stage.ray.instead[0, "join", 2] = DiesError("killed")
    stage.group.welcome(0)
    assert stage.members == [2]
    assert stage.told.of(RankJoined) == [RankJoined(0, 0, "node-a", 102)]


def on_gpus(ray: FakeRay, number: int) -> None:
    ray.instead[number, "describe", 0] = RankDescription("node-a", 100 + number, "cuda:0")


@pytest.mark.parametrize("is_hung", [False, True])
def test_under_nccl_the_loss_of_one_rank_ends_all_at_once_and_the_run_goes_on_from_its_checkpoint(
    start: Start, is_hung: bool
) -> None:
    ray = FakeRay({"CPU": 8.0, "GPU": 8.0})
    for number in range(3):
        on_gpus(ray, number)
    stage = start(3, ray, num_gpus=1)
    stage.group.wait_ready(60, lambda: None)
    stage.told.facts.clear()
    if not is_hung:
        stage.kill(1)
    for number in (0, 2) if not is_hung else (0, 1, 2):
        ray.instead[number, "step", 0] = Late(NEVER)  # in a collective
    with pytest.raises(LearnerLostError, match="after step 4, and under NCCL the others cannot go on without it"):
        stage.group.recover(4)
    lost = {fact.rank: fact.reason for fact in stage.told.of(RankLost)}
    waits = "killed: NCCL does not go on without the others"
    assert lost == {0: waits, 1: waits if is_hung else "killed", 2: waits}
    assert numbers(stage, ray.killed) == [0, 1, 2]
    assert ray.now <= 2  # and not after collective_timeout_seconds
    assert len(ray.actors) == 3  # nobody is replaced


def test_a_single_rank_on_a_gpu_is_lost_like_any_other(start: Start) -> None:
    ray = FakeRay()
    on_gpus(ray, 0)
    stage = start(1, ray)
    stage.group.wait_ready(60, lambda: None)
    stage.kill(0)
    with pytest.raises(LearnerLostError, match="all 1 learner ranks were lost in step 5"):
        stage.group.recover(4)


def test_ranks_on_gpus_are_placed_together_and_their_room_is_given_back(start: Start) -> None:
    ray = FakeRay({"CPU": 8.0, "GPU": 8.0})
    group = start(2, ray, num_gpus=1, label_selector={"kind": "big"}).group
    assert ray.rooms == [({"CPU": 1.0, "GPU": 1.0}, 2, {"kind": "big"})]
    assert [actor.options["room"] for actor in ray.actors] == [1, 1]
    group.shutdown()
    assert ray.rooms == [None]


@pytest.mark.parametrize(("count", "num_gpus"), [(2, 0), (1, 1)])
def test_other_ranks_are_placed_one_by_one(start: Start, count: int, num_gpus: float) -> None:
    ray = FakeRay()
    start(count, ray, num_gpus=num_gpus)
    assert ray.rooms == []


def test_a_shutdown_asks_the_ranks_to_leave_and_kills_them_and_those_to_come(formed: Start) -> None:
    stage = outlived(formed)
    stage.ray.killed.clear()
    stage.group.shutdown()
    assert numbers(stage, stage.ray.killed) == [0, 2]
    assert [stage.times_asked(number, "leave") for number in (0, 2)] == [1, 0]
    assert stage.ray.now == 0


def numbers(stage: Stage, actors: list[FakeActor]) -> list[int]:
    return [stage.ray.actors.index(actor) for actor in actors]


def test_a_rank_that_does_not_leave_is_killed_after_5_s(formed: Start) -> None:
    stage = formed()
    stage.ray.instead[1, "leave", 0] = Late(NEVER)
    stage.group.shutdown()
    assert stage.ray.now == 5
    assert numbers(stage, stage.ray.killed) == [0, 1]
