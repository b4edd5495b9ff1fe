"""The learner's ranks as one, on a stand-in for Ray: what a step reports, and what follows where it breaks off."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import ClusterError, DataError, DivergedError, LearnerLostError
from common.facts import RankJoined, RankLost
from common.ray_calls_group import NoAnswerError
from common.types import StepReport, WeightSnapshot
from learner.checkpoint import Checkpoint, CheckpointState
from learner.learner_actor import RankReport
from learner.learner_group import LearnerGroup
from learner.peers import PeerLostError
from learner.shares import Piece
from learner.step_sums import StepSums
from tests.fakes import NEVER, DiesError, FakeRay, Late, Told
from tests.learner.scripted_rank import ScriptedRank

BROKEN = PeerLostError("Connection closed by peer")
TABLES = [("a", 4), ("b", 2)]  # references, and how many groups each has
ALL = [Piece("a", 0, 4), Piece("b", 0, 2)]


class Stage:
    """A learner whose ranks are ready; `ranks` are all that ever were, in that order."""

    def __init__(self, recipe: Recipe, num_ranks: int, changes: dict[str, Any]):
        self.ray, self.told, self.beats = FakeRay(), Told(), list[float]()
        own = {"num_ranks": num_ranks} | changes
        recipe = with_changes(recipe, {f"learner.{key}": value for key, value in own.items()})
        self.group = LearnerGroup(recipe, self.told, self.ray, ScriptedRank)
        self.group.wait_ready(60, lambda: self.beats.append(self.ray.now))
        self.told.facts.clear()

    @property
    def ranks(self) -> list[ScriptedRank]:
        return [fake.self for fake in self.ray.actors]

    def step(self) -> StepReport:
        self.group.start_step(TABLES)
        return self.group.finish_step()

    def times_trained(self, number: int) -> int:
        return [name for name, _ in self.ray.actors[number].asked].count("train")


Start = Callable[..., Stage]


@pytest.fixture
def start(tiny_recipe: Recipe) -> Start:
    """start(number of ranks, changes of `learner`)"""
    return lambda num_ranks=2, **changes: Stage(tiny_recipe, num_ranks, changes)


def test_a_step_is_shared_by_the_ranks_and_reported_as_one(start: Start) -> None:
    stage = start()
    report = stage.step()
    assert stage.ray.actors[0].asked[-1] == ("train", ([Piece("a", 0, 3)], 6))
    assert stage.ray.actors[1].asked[-1] == ("train", ([Piece("a", 3, 1), Piece("b", 0, 2)], 6))
    assert (report.step, report.num_groups, report.is_partial, report.is_bad) == (1, 6, False, False)
    assert report.loss == 1.5  # of three groups with a loss of 1, and three with 2
    assert (report.grad_norm, report.stage_seconds) == (0.5, {"fetch": 0.25})  # as the first rank says
    assert (report.resident_bytes, report.gpu_peak_bytes) == (1001, 1)  # of the rank that took most
    assert stage.step().step == 2


def test_a_step_runs_until_it_is_finished(start: Start) -> None:
    stage = start()
    assert (stage.group.is_running, stage.group.waiting_for()) == (False, [])
    stage.ray.instead[1, "train", 0] = Late(2, RankReport(StepSums(num_groups=3), 0.5, {}, 0, 0))
    stage.group.start_step(TABLES)
    assert stage.group.is_running
    assert [stage.ray.ready([reference]) != [] for reference in stage.group.waiting_for()] == [True, False]
    stage.group.finish_step()
    assert (stage.ray.now, stage.beats[-4:]) == (2, [0, 0.5, 1, 1.5])
    assert (stage.group.is_running, stage.group.waiting_for()) == (False, [])


def test_fewer_groups_than_ranks_are_a_mistake_in_the_data(start: Start) -> None:
    with pytest.raises(DataError, match="a step has 1 groups for 2 learner ranks"):
        start().group.start_step([("a", 1)])


def test_what_a_rank_raises_in_a_step_is_raised(start: Start) -> None:
    stage = start()
    stage.ray.instead[1, "train", 0] = RuntimeError("a bug")
    stage.group.start_step(TABLES)
    with pytest.raises(RuntimeError, match="a bug"):
        stage.group.finish_step()


@pytest.mark.parametrize(("dead", "survivor"), [(0, 1), (1, 0)])
def test_a_step_that_a_dying_rank_broke_off_is_done_again_by_the_others_on_all_its_groups(
    start: Start, dead: int, survivor: int
) -> None:
    stage = start()
    stage.step()
    stage.ray.instead |= {(dead, "train", 1): DiesError("out of memory"), (survivor, "train", 1): BROKEN}
    report = stage.step()
    assert (report.step, report.num_groups, report.is_partial) == (2, 6, False)
    assert report.loss == 1 + survivor
    assert stage.ranks[survivor].pieces == ALL
    assert stage.ranks[survivor].steps == 2
    assert stage.told.facts == [RankLost(dead, "out of memory", 1, 100 + dead)]
    assert len(stage.ray.actors) == 3


def test_the_replacement_joins_before_the_next_step_and_gets_its_share(start: Start) -> None:
    stage = start()
    stage.ray.instead |= {(0, "train", 0): DiesError("killed"), (1, "train", 0): BROKEN}
    stage.step()
    report = stage.step()
    assert (report.step, report.num_groups, report.loss) == (2, 6, 2.5)  # by ranks with losses of 2 and 3
    assert stage.told.facts[1:] == [RankJoined(1, 1, "node-a", 102)]
    assert [(rank.steps, rank.state) for rank in stage.ranks[1:]] == [(2, "state of 1")] * 2
    assert stage.ranks[1].pieces == [Piece("a", 0, 3)]


def test_an_update_that_a_survivor_completed_counts_and_is_reported_from_what_the_survivors_measured(
    start: Start,
) -> None:
    stage = start()
    stage.ray.instead[1, "train", 0] = DiesError("killed")
    report = stage.step()
    assert (report.step, report.num_groups, report.is_partial) == (1, 6, True)
    assert report.loss == 1  # a mean over the three groups of the survivor
    assert report.resident_bytes == 1000
    assert stage.times_trained(0) == 1
    assert stage.group.is_running is False
    assert stage.step().step == 2


def test_groups_that_a_survivor_left_out_are_not_among_those_of_a_partial_report(start: Start) -> None:
    stage = start()
    sums = StepSums(num_groups=2, num_quarantined=1, sums={"loss": 4.0})
    stage.ray.instead |= {
        (0, "train", 0): Late(0, RankReport(sums, 0.5, {}, 0, 0)),
        (1, "train", 0): DiesError("killed"),
    }
    stage.group.start_step(TABLES)
    stage.ranks[0].steps = 1
    report = stage.group.finish_step()
    assert (report.num_groups, report.num_quarantined, report.loss) == (5, 1, 2.0)


def test_of_three_the_one_that_completed_the_update_gives_it_to_the_other(start: Start) -> None:
    stage = start(3)
    stage.ray.instead |= {(0, "train", 0): BROKEN, (2, "train", 0): DiesError("killed")}
    report = stage.step()
    assert (report.step, report.num_groups, report.is_partial, report.loss) == (1, 6, True, 2.0)
    assert [(rank.steps, rank.state) for rank in stage.ranks[:2]] == [(1, "state of 1")] * 2
    stage.group.start_step(TABLES)
    assert [stage.ranks[number].pieces[0] for number in (1, 0, 3)] == [
        Piece("a", 0, 2),
        Piece("a", 2, 2),
        Piece("b", 0, 2),
    ]


def test_a_rank_that_hangs_holds_the_step_up_for_as_long_as_its_collectives_may_take_and_a_minute(
    start: Start,
) -> None:
    stage = start(collective_timeout_seconds=40)
    stage.ray.instead |= {(0, "train", 0): Late(40, BROKEN), (1, "train", 0): Late(NEVER)}
    report = stage.step()
    assert stage.ray.now == 40 + 100
    assert stage.told.facts == [RankLost(1, "it does not answer", 0, 101)]
    assert (report.step, report.num_groups, report.is_partial) == (1, 6, False)


def test_a_collective_that_breaks_without_a_loss_has_both_do_the_step_again(start: Start) -> None:
    stage = start()
    stage.ray.instead |= {(0, "train", 0): BROKEN, (1, "train", 0): BROKEN}
    report = stage.step()
    assert (report.step, report.num_groups, report.loss) == (1, 6, 1.5)
    assert stage.told.facts == []
    assert [stage.times_trained(number) for number in (0, 1)] == [2, 2]


def test_a_step_that_breaks_off_again_and_again_ends_the_run(start: Start) -> None:
    stage = start(max_restarts=2)
    stage.ray.instead |= {(rank, "train", call): BROKEN for rank in (0, 1) for call in range(1, 4)}
    stage.step()
    with pytest.raises(ClusterError) as raised:
        stage.step()
    assert str(raised.value) == (
        "step 2 was broken off 3 times: events.jsonl names the lost ranks; where none was lost, look at the "
        "network between their nodes"
    )


def test_the_loss_of_every_rank_in_a_step_loses_the_learner(start: Start) -> None:
    stage = start()
    stage.step()
    stage.ray.instead |= {(rank, "train", 1): DiesError("out of memory") for rank in (0, 1)}
    with pytest.raises(LearnerLostError, match=r"all 2 learner ranks were lost in step 2 \(out of memory\)"):
        stage.step()
    assert [(fact.rank, fact.step) for fact in stage.told.of(RankLost)] == [(0, 1), (1, 1)]


def test_more_losses_than_max_restarts_end_the_run(start: Start) -> None:
    stage = start(max_restarts=0)
    stage.ray.instead |= {(0, "train", 0): BROKEN, (1, "train", 0): DiesError("killed")}
    with pytest.raises(ClusterError, match=r"1 learner ranks were lost, more than learner\.max_restarts \(0\)"):
        stage.step()


def with_norm(grad_norm: float) -> Late:
    return Late(0, RankReport(StepSums(num_groups=3, sums={"loss": 3.0}), grad_norm, {}, 0, 0))


def test_bad_steps_in_a_row_end_the_run_and_a_good_one_between_them_does_not(start: Start) -> None:
    stage = start(max_bad_steps=2)
    nan, inf = float("nan"), float("inf")
    stage.ray.instead |= {
        (0, "train", 0): with_norm(nan),
        (0, "train", 2): with_norm(nan),
        (0, "train", 3): with_norm(inf),
    }
    assert [stage.step().is_bad for _ in range(3)] == [True, False, True]
    with pytest.raises(DivergedError) as raised:
        stage.step()
    assert str(raised.value) == (
        "the gradient norm of step 4 is inf (loss 1.5), as in 2 steps in a row (learner.max_bad_steps): lower "
        "learner.lr, or resume from an older checkpoint"
    )


def test_weights_and_optimizer_are_those_of_the_first_rank_or_of_the_next_where_it_dies(start: Start) -> None:
    stage = start()
    assert stage.ray.get(stage.group.snapshot(0)) == "version 0 of 0"
    assert stage.group.weights_sha256() == "digest of state of 0"
    stage.step()
    stage.ray.bury(stage.ray.actors[0], "killed")
    assert stage.ray.get(stage.group.snapshot(1)) == "version 1 of 1"
    assert stage.group.weights_sha256() == "digest of state of 1"
    stage.ray.bury(stage.ray.actors[1], "killed")
    stage.ray.bury(stage.ray.actors[2], "killed")  # the replacement of the first
    assert stage.group.weights_sha256() is None
    assert stage.told.facts == [RankLost(0, "killed", 1, 100)]


@pytest.mark.parametrize(("fault", "seconds"), [(DiesError("killed"), 0), (Late(NEVER), 200)])
def test_should_the_first_rank_be_lost_on_the_way_the_next_is_asked(
    start: Start, fault: Exception | Late, seconds: float
) -> None:
    stage = start(3, collective_timeout_seconds=40)
    stage.step()
    stage.ray.instead[0, "snapshot", 0] = fault
    assert stage.ray.get(stage.group.snapshot(1)) == "version 1 of 1"
    assert [(fact.rank, fact.step) for fact in stage.told.of(RankLost)] == [(0, 1)]
    assert stage.ray.now == seconds


def test_an_answer_on_its_way_is_none_until_it_is_there_and_an_error_where_it_is_overdue(start: Start) -> None:
    stage = start(1, collective_timeout_seconds=40)
    stage.ray.instead[0, "snapshot", 0] = Late(3, (8, "weights"))
    asked = stage.group.publish(0)
    assert stage.group.answer(asked) is None
    stage.ray.ready([asked.told], timeout=10)
    assert (stage.ray.now, stage.group.answer(asked), stage.ray.get(asked.value)) == (3, 8, "weights")
    stage.ray.instead[0, "training_state", 0] = Late(NEVER)
    asked = stage.group.training_state()
    stage.ray.ready([asked.told], timeout=99)
    assert stage.group.answer(asked) is None
    stage.ray.ready([asked.told], timeout=1)
    with pytest.raises(NoAnswerError, match="it has not answered for 100 s"):
        stage.group.answer(asked)


def checkpoint(step: int) -> Checkpoint:
    state = CheckpointState(step, ledger={}, groups_learned=0, images_skipped=0, recipe={})
    return Checkpoint(
        Path("step-000007"), state, WeightSnapshot(step, (), np.zeros(0, np.uint8)), {"moments": "of a checkpoint"}
    )


def test_a_checkpoint_is_taken_up_by_every_rank(start: Start) -> None:
    stage = start()
    stage.group.resume(checkpoint(7))
    assert [(rank.steps, rank.state) for rank in stage.ranks] == [(7, {"moments": "of a checkpoint"})] * 2
    (_, arguments) = stage.ray.actors[1].asked[-1]
    assert stage.ray.get(arguments[2]).version == 7
    assert stage.step().step == 8


def test_a_checkpoint_is_taken_up_again_where_a_rank_dies_meanwhile(start: Start) -> None:
    stage = start()
    stage.ray.instead[0, "resume", 0] = DiesError("killed")
    stage.group.resume(checkpoint(7))
    assert (stage.ranks[1].steps, stage.ranks[1].state) == (7, {"moments": "of a checkpoint"})
    report = stage.step()
    assert (report.step, report.num_groups) == (8, 6)
    assert (stage.ranks[2].steps, stage.ranks[2].state) == (8, {"moments": "of a checkpoint"})


def test_a_shutdown_ends_every_rank(start: Start) -> None:
    stage = start()
    stage.group.shutdown()
    assert stage.ray.killed == stage.ray.actors
    assert [rank.place for rank in stage.ranks] == [(), ()]


def test_a_rank_that_hangs_when_the_others_have_ended_the_step_is_lost_and_the_step_counts(start: Start) -> None:
    stage = start(collective_timeout_seconds=30.0)
    stage.ray.instead[1, "train", 0] = Late(NEVER)
    report = stage.step()
    assert (report.step, report.is_partial) == (1, True)
    assert 90 <= stage.ray.now < 200
    assert [fact.rank for fact in stage.told.of(RankLost)] == [1]


def test_ranks_that_all_hang_are_lost_when_the_step_is_overdue(start: Start) -> None:
    stage = start(step_timeout_seconds=50.0, collective_timeout_seconds=30.0)
    stage.step()
    stage.ray.instead |= {(rank, "train", 1): Late(NEVER) for rank in (0, 1)}
    stage.group.start_step(TABLES)
    began = stage.ray.now
    assert not stage.group.is_overdue
    with pytest.raises(LearnerLostError, match=r"all 2 learner ranks were lost in step 2 \(it does not answer\)"):
        stage.group.finish_step()
    assert stage.group.is_overdue
    assert 50 + 90 <= stage.ray.now - began < 200


def test_a_slow_step_that_ends_in_time_is_no_loss(start: Start) -> None:
    stage = start(step_timeout_seconds=50.0)
    stage.ray.instead[1, "train", 0] = Late(49, RankReport(StepSums(num_groups=3), 0.5, {}, 0, 0))
    assert stage.step().step == 1
    assert stage.told.facts == []
