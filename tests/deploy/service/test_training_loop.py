"""The driver's loop, turn by turn: who gets what, what is learned from and when, and what is told of it."""

import math
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import DataError
from common.facts import (
    ActorJoined,
    ActorLeft,
    ActorLost,
    CheckpointWritten,
    GroupsQuarantined,
    ImageSkipped,
    PictureSaved,
    Published,
    RankLost,
    ResultRefused,
    Scored,
    StepLearned,
    StepSkipped,
    TicketDelivered,
    TicketDropped,
)
from common.request_facts import Scaled, ScaleRefused, StopAskedFor
from common.types import SkippedImage, TrainingState
from common.weights.snapshot import tensors_of
from deploy.runs.status import LoopState
from learner.checkpoint import read_checkpoint
from learner.step_sums import StepSums
from tests.deploy.service.scripted import Actor, FourChunks, Rank, Served, serving
from tests.fakes import DiesError, FakeRay, Late, Reference

STEPS = 5
ALL = list(range(2 * STEPS))  # two tickets a step


@pytest.fixture
def loop(tiny_recipe: Recipe, tmp_path: Path) -> Any:
    """Makes loops: loop(changes, actor=…, rank=…). Steps of four images, tickets of two."""

    def make(changes: dict[str, Any] | None = None, **parts: Any) -> Any:
        recipe = with_changes(tiny_recipe, {"learner.num_steps": STEPS} | (changes or {}))
        return serving(recipe, tmp_path / "run", **parts)

    return make


class SlowRank(Rank):
    def train(self, pieces: Any, num_groups: int) -> Any:
        return Late(10.0, super().train(pieces, num_groups))


class SlowActor(Actor):
    def roll_out(self, *ticket: Any) -> Any:
        return Late(1.0, super().roll_out(*ticket))


def test_a_step_is_told_with_what_it_took(loop) -> None:
    class BusyRank(Rank):
        def train(self, pieces: Any, num_groups: int) -> Any:
            return Late(2.0, super().train(pieces, num_groups))

        def snapshot(self, version: int) -> Any:
            return Late(0.5, super().snapshot(version))

    with loop(actor=SlowActor, rank=BusyRank) as served:
        served.run()
    assert served.tickets == ALL
    assert served.told.of(Published) == [Published(version, 0.5, 4) for version in (1, 2, 3, 4, 5)]
    assert [step.report.step for step in served.steps] == [step.policy_version for step in served.steps]
    third = served.steps[2]
    assert (third.report.step, third.report.num_groups) == (3, 4)
    assert (list(third.tickets), list(third.staleness)) == ([4, 5], [0, 0])
    assert (third.num_actors, third.groups_buffered) == (1, 0)
    assert (third.step_seconds, third.wait_seconds) == (4.5, 2.5)  # publish, roll two out, learn
    assert third.actor_stage_seconds == {"decode": 0.5}  # of both tickets
    names = [name for name in served.told.names if name in ("ticket_delivered", "published", "step_learned")]
    assert names == ["ticket_delivered", "ticket_delivered", "step_learned", "published"] * STEPS


def test_the_state_of_the_moment_is_watched_at_every_turn(loop) -> None:
    with loop() as served:
        served.run()
    assert served.states[-1] == LoopState(
        step=5,
        policy_version=5,
        tickets_learned=10,
        num_tickets=10,
        groups_learned=20,
        images_skipped=0,
        groups_buffered=0,
        bytes_buffered=0,
        actors=served.states[0].actors,
        actors_wanted=1,
        actor_restarts=0,
        actors_most=16,
    )
    assert list(dict.fromkeys(state.tickets_learned for state in served.states)) == [0, 2, 4, 6, 8, 10]


@pytest.mark.parametrize(
    ("max_staleness", "staleness"),
    [(0, [[0, 0]] * 5), (1, [[0, 0], *[[1, 1]] * 4]), (2, [[0, 0], [1, 1], *[[2, 2]] * 3])],
)
def test_actors_work_ahead_up_to_the_bound_and_nothing_older_is_learned(
    loop, max_staleness: int, staleness: list[list[int]]
) -> None:
    with loop({"buffer.max_staleness": max_staleness, "actors.count": 2}, rank=SlowRank) as served:
        served.run()
    assert [list(step.staleness) for step in served.steps] == staleness
    assert [list(step.tickets) for step in served.steps] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert served.tickets == ALL
    assert served.told.of(TicketDropped) == []


def test_nothing_is_admitted_beyond_the_capacity_of_the_buffer(loop) -> None:
    ahead: list[int] = []

    def count(served: Served) -> None:
        ahead.append(served.num_rolled - 2 * len(served.steps))

    changes = {"buffer.max_staleness": 2, "actors.count": 3, "actors.tickets_in_flight": 5}
    with loop(changes, rank=SlowRank, at_turn=count) as served:
        served.run()
    assert max(ahead) == 6  # (2 + 1) steps of two tickets
    assert max(state.groups_buffered for state in served.states) == served.loop.recipe.buffer_capacity == 12
    assert max(state.bytes_buffered for state in served.states) == 120
    assert served.tickets == ALL


def test_a_stale_ticket_is_dropped_told_and_rolled_out_again(loop) -> None:
    class LateWithTheFirst(Actor):
        def roll_out(self, ticket: Any, version: int, *snapshot: Any) -> Any:
            seconds = 35.0 if (ticket.ticket_id, version) == (0, 0) else 0.0
            return Late(seconds, super().roll_out(ticket, version, *snapshot))

    changes = {"buffer.max_staleness": 1, "actors.count": 2, "actors.tickets_in_flight": 1}
    with loop(changes | {"learner.num_steps": 7}, actor=LateWithTheFirst, rank=SlowRank) as served:
        served.run()
    assert served.told.of(TicketDropped) == [TicketDropped(0, "stale", version=0, num_groups=2)]
    delivered = [fact.receipt for fact in served.told.of(TicketDelivered) if fact.receipt.ticket_id == 0]
    assert [receipt.policy_version for receipt in delivered] == [0, 4]
    assert served.tickets == list(range(14))
    assert max(versions for step in served.steps for versions in step.staleness) == 1
    assert served.states[-1].bytes_buffered == 0


class LosesGroups(FakeRay):
    """The node that has the groups of ticket 5 goes down with them, once."""

    has_lost = False

    def call(self, method: Any, arguments: Any) -> Any:
        references = super().call(method, arguments)
        if method.name == "roll_out" and arguments[0].ticket_id == 5 and not self.has_lost:
            self.has_lost = True
            self.lose(references[1])
        return references


def test_groups_lost_with_a_node_are_rolled_out_again(loop) -> None:
    with loop(ray=LosesGroups()) as served:
        served.run()
    assert served.told.of(TicketDropped) == [TicketDropped(5, "groups lost with a node", version=2, num_groups=2)]
    assert served.num_rolled == len(ALL) + 1
    assert served.tickets == ALL
    assert all(step.staleness == [0, 0] for step in served.steps)
    assert served.told.of(ActorLost) == []


class LosesWeights(FakeRay):
    """The node that has the weights goes down before an actor that is given the ticket can pull them, once."""

    def __init__(self, ticket: int):
        super().__init__()
        self._tickets = [ticket]

    def call(self, method: Any, arguments: Any) -> Any:
        if method.name == "roll_out" and arguments[0].ticket_id in self._tickets:
            self._tickets.clear()
            self.lose(arguments[2][0])
        return super().call(method, arguments)


def test_weights_lost_with_a_node_are_published_again_and_their_tickets_rolled_out_again(loop) -> None:
    with loop(ray=LosesWeights(4)) as served:
        served.run()
    assert served.told.of(TicketDropped) == [
        TicketDropped(ticket, "weights lost with a node", version=2, num_groups=2) for ticket in (4, 5)
    ]
    assert [fact.version for fact in served.told.of(Published)] == [1, 2, 2, 3, 4, 5]
    assert served.num_rolled == len(ALL) + 2
    assert served.tickets == ALL
    assert all(step.staleness == [0, 0] for step in served.steps)


@pytest.mark.parametrize(
    ("staleness", "steps"),
    [(0, [2, 4, 5]), (1, [3, 4, 5])],  # under staleness 1 the next step is at work by then
)
def test_a_state_lost_before_a_checkpoint_took_it_is_asked_for_again(
    loop, staleness: int, steps: list[int]
) -> None:
    class LosesState(FakeRay):
        lost = False

        def get(self, reference: Any, timeout: float | None = None) -> Any:
            value = reference.value if isinstance(reference, Reference) else None
            if isinstance(value, TrainingState) and not self.lost:
                self.lost = True
                self.lose(reference)
            return super().get(reference, timeout)

    changes = {"checkpoint.every": 2, "checkpoint.keep": 9, "buffer.max_staleness": staleness}
    with loop(changes, ray=LosesState(), rank=SlowRank) as served:
        served.run()
    assert [fact.step for fact in served.told.of(CheckpointWritten)] == steps
    checkpoint = read_checkpoint(served.folder.checkpoints / f"step-{steps[0]:06d}")
    assert tensors_of(checkpoint.weights)["w"].tolist() == [steps[0]]
    assert checkpoint.state.ledger == {"learned_below": 2 * steps[0], "learned_beyond": []}
    assert served.tickets == ALL


def test_the_next_step_runs_while_weights_are_on_their_way_and_their_slots_reopen_when_they_are_there(
    loop,
) -> None:
    class SlowlyPublished(SlowRank):
        def snapshot(self, version: int) -> Any:
            return Late(4.0, super().snapshot(version))

    with loop({"buffer.max_staleness": 1}, ray=TwoThreads(), rank=SlowlyPublished) as served:
        served.run()
    assert [step.step_seconds for step in served.steps] == [10.0] * STEPS
    assert [step.staleness for step in served.steps] == [[0, 0], *[[1, 1]] * (STEPS - 1)]
    assert [fact.seconds for fact in served.told.of(Published)] == [4.0] * STEPS
    assert served.tickets == ALL


class TwoThreads(FakeRay):
    """A rank's `snapshot` keeps no other call of its waiting, as on a thread of its own."""

    def _run(self, actor: Any, name: str, arguments: list[Any], reference: Reference) -> None:
        busy_until = actor.busy_until
        super()._run(actor, name, arguments, reference)
        if name == "snapshot":
            actor.busy_until = busy_until


@pytest.mark.parametrize(("staleness", "published"), [(0, [1, 2, 3, 4, 5]), (1, [1, 3, 4, 5])])
def test_a_version_that_a_dying_rank_takes_with_it_is_published_by_the_next_or_with_the_step_that_runs(
    loop, staleness: int, published: list[int]
) -> None:
    ray = TwoThreads()
    ray.instead[0, "snapshot", 2] = DiesError("killed")  # of version 2: the first was for the start
    changes = {"learner.num_ranks": 2, "buffer.max_staleness": staleness, "learner.images_per_step": 4}
    with loop(changes, ray=ray, rank=SlowRank) as served:
        served.run()
    (lost,) = served.told.of(RankLost)
    assert lost.rank == 0
    assert [fact.version for fact in served.told.of(Published)] == published
    assert [step.report.step for step in served.steps] == [1, 2, 3, 4, 5]
    assert sorted(ticket for step in served.steps for ticket in step.tickets) == ALL


def test_where_the_learner_is_at_work_nobody_rolls_out_until_the_weights_of_its_step_are_there(loop) -> None:
    changes = {"buffer.max_staleness": 2, "actors.tickets_in_flight": 1}
    with loop(changes, ray=LosesWeights(6), rank=SlowRank) as served:
        served.run()
    (lost,) = served.told.of(TicketDropped)
    assert lost == TicketDropped(6, "weights lost with a node", version=1, num_groups=2)
    assert [fact.version for fact in served.told.of(Published)] == [1, 2, 3, 4, 5]
    rolled = {fact.receipt.ticket_id: fact.receipt.policy_version for fact in served.told.of(TicketDelivered)}
    assert rolled == {0: 0, 1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 2, 7: 2, 8: 2, 9: 2}
    assert served.tickets == ALL


def test_the_loss_of_weights_that_are_no_longer_published_needs_no_other_publication(loop) -> None:
    class ToldOfLate(LosesWeights):
        def call(self, method: Any, arguments: Any) -> Any:
            references = super().call(method, arguments)
            if method.name == "roll_out" and references[0].error is not None:
                for reference in references:
                    reference.done_at += 15.0  # by then the weights of the next step are there
            return references

    changes = {"buffer.max_staleness": 2, "actors.tickets_in_flight": 1}
    with loop(changes, ray=ToldOfLate(6), rank=SlowRank) as served:
        served.run()
    assert served.told.of(TicketDropped) == [TicketDropped(6, "weights lost with a node", version=1, num_groups=2)]
    assert [fact.version for fact in served.told.of(Published)] == [1, 2, 3, 4, 5]
    again = [fact.receipt for fact in served.told.of(TicketDelivered) if fact.receipt.ticket_id == 6]
    assert [receipt.policy_version for receipt in again] == [2]  # at once
    assert served.tickets == ALL


def test_the_late_answer_of_an_actor_that_lost_its_ticket_is_refused_and_told(loop) -> None:
    """As from a node that the cluster cannot reach for a while: Ray is not able to kill it, and it answers."""

    class HangsAtTicket3(Actor):
        def roll_out(self, ticket: Any, *policy: Any) -> Any:
            hangs = ticket.ticket_id == 3 and self.name == "actor-0"
            return Late(23.0 if hangs else 0.0, super().roll_out(ticket, *policy))

    ray = FakeRay()
    ray.kills_work = False
    lease = {"actors.ticket_timeout_seconds": 20, "actors.tickets_in_flight": 1}
    with loop(lease, ray=ray, actor=HangsAtTicket3, rank=SlowRank) as served:
        served.run()
    assert served.told.of(ActorLost) == [ActorLost("actor-0", "actor-0 has not answered for 20 s", [3])]
    assert served.told.of(ResultRefused) == [ResultRefused("actor-0", 3)]
    assert "ticket 3 by actor-1" in served.learned
    assert served.tickets == ALL
    assert [fact.actor for fact in served.told.of(TicketDelivered) if fact.receipt.ticket_id == 3] == ["actor-1"]


def test_a_lost_actor_is_told_with_its_tickets_which_others_roll_out(loop) -> None:
    class DiesAtTicket3(Actor):
        def roll_out(self, ticket: Any, *policy: Any) -> Any:
            if ticket.ticket_id == 3 and self.name == "actor-0":
                raise DiesError("out of memory")
            return Late(1.0, super().roll_out(ticket, *policy))

    with loop(actor=DiesAtTicket3) as served:
        served.run()
    assert served.told.of(ActorLost) == [ActorLost("actor-0", "out of memory", [2, 3])]
    assert served.learned[2:4] == ["ticket 2 by actor-1", "ticket 3 by actor-1"]
    assert served.tickets == ALL
    assert served.states[-1].actor_restarts == 1


A_PNG = SkippedImage(3, "a.png", "no picture")
B_PNG = SkippedImage(4, "b.png", "non-finite reward", is_quarantined=True)
C_PNG = SkippedImage(5, "c.png", "no picture")


def test_images_without_a_group_are_named_with_their_step_and_counted(loop) -> None:
    class Skips(Actor):
        def rolled(self, ticket: Any, skipped: tuple[SkippedImage, ...] = ()) -> Any:
            return super().rolled(ticket, {1: (A_PNG,), 2: (B_PNG, C_PNG)}.get(ticket.ticket_id, ()))

    with loop({"buffer.max_staleness": 1}, actor=Skips, rank=SlowRank) as served:
        served.run()
    told = [fact for fact in served.told.facts if isinstance(fact, ImageSkipped | StepLearned)]
    assert [getattr(fact, "image", fact.event) for fact in told] == [
        A_PNG, "step_learned", B_PNG, C_PNG, *["step_learned"] * 4
    ]  # fmt: skip
    assert [step.report.num_groups for step in served.steps] == [3, 2, 4, 4, 4]
    assert [list(step.staleness) for step in served.steps] == [[0, 0], [1], *[[1, 1]] * 3]
    assert [list(step.tickets) for step in served.steps][:2] == [[0, 1], [2, 3]]
    assert "None" not in map(str, served.learned)
    assert (served.states[-1].groups_learned, served.states[-1].images_skipped) == (17, 3)
    checkpoint = read_checkpoint(served.folder.checkpoints / "step-000005")
    assert (checkpoint.state.groups_learned, checkpoint.state.images_skipped) == (17, 3)


def test_a_step_without_any_group_ends_the_run_with_what_to_do(loop) -> None:
    class SkipsAll(Actor):
        def rolled(self, ticket: Any, skipped: tuple[SkippedImage, ...] = ()) -> Any:
            return super().rolled(ticket, tuple(SkippedImage(i, "a.png", "bad") for i in ticket.sample_indices))

    with (
        loop(actor=SkipsAll) as served,
        pytest.raises(DataError, match=r"a step has no group to learn from: all of its .* were left out"),
    ):
        served.run()


def test_a_step_whose_gradient_is_not_finite_is_told_and_the_run_goes_on(loop) -> None:
    class Poisoned(Rank):
        def train(self, *step: Any) -> Any:
            report = super().train(*step)
            if self.steps != 2:
                return report
            return replace(report, sums=StepSums(num_groups=3, num_quarantined=1), grad_norm=math.nan)

    with loop(rank=Poisoned) as served:
        served.run()
    assert served.told.of(StepSkipped) == [StepSkipped(2, "nan")]
    assert served.told.of(GroupsQuarantined) == [GroupsQuarantined(2, 1)]
    assert [step.report.is_bad for step in served.steps] == [False, True, False, False, False]
    assert served.tickets == ALL
    assert served.states[-1].groups_learned == 19


@pytest.mark.parametrize(("every", "at"), [(2, [2, 4, 5]), (5, [5]), (50, [5]), (1, [1, 2, 3, 4, 5])])
def test_checkpoints_are_written_at_their_cadence_and_at_the_end(loop, every: int, at: list[int]) -> None:
    with loop({"checkpoint.every": every, "checkpoint.keep": 9}) as served:
        served.run()
    assert [fact.step for fact in served.told.of(CheckpointWritten)] == at
    assert sorted(path.name for path in served.folder.checkpoints.iterdir()) == [f"step-{step:06d}" for step in at]
    for step in at:
        checkpoint = read_checkpoint(served.folder.checkpoints / f"step-{step:06d}")
        assert (checkpoint.state.step, checkpoint.state.groups_learned) == (step, 4 * step)
        assert checkpoint.state.ledger == {"learned_below": 2 * step, "learned_beyond": []}
        assert tensors_of(checkpoint.weights)["w"] == checkpoint.optimizer["w.step"] == [step]


def test_the_time_of_a_checkpoint_is_no_time_that_the_learner_waits(loop) -> None:
    class Heavy(Rank):
        def training_state(self) -> Any:
            return Late(7.0, super().training_state())

    with loop({"checkpoint.every": 2}, rank=Heavy, actor=SlowActor) as served:
        served.run()
    assert [step.wait_seconds for step in served.steps] == [2.0] * STEPS
    assert [step.step_seconds for step in served.steps] == [2.0, 2.0, 7.0, 2.0, 7.0]  # actors go on


def test_scale_and_stop_are_asked_for_through_the_control_actor(loop) -> None:
    script = [
        (lambda told: told.of(StepLearned), {"scale": 3}),
        (lambda told: len(told.of(ActorJoined)) == 3, {"scale": 1}),
        (lambda told: len(told.of(ActorLeft)) == 2, {"scale": 1}),  # as it is
        (lambda told: True, {"stop": True}),
    ]

    def ask(served: Served) -> None:
        if script and script[0][0](served.told):
            served.ask(script.pop(0)[1])

    with loop({"learner.num_steps": 400}, rank=SlowRank, at_turn=ask) as served:
        served.run()
    assert served.told.of(Scaled) == [Scaled(1, 3, "asked for"), Scaled(3, 1, "asked for")]
    assert [(state.actors_wanted, state.actors_ready) for state in served.states][-1] == (1, 1)
    assert served.told.of(StopAskedFor) == [StopAskedFor()]
    assert served.loop.stop_signal == signal.SIGTERM
    steps = len(served.steps)
    assert 1 < steps < 9
    assert served.tickets == list(range(2 * steps))
    assert served.told.names[-3:] == ["step_learned", "published", "checkpoint"]
    assert [fact.step for fact in served.told.of(CheckpointWritten)] == [steps]


def test_a_loop_that_is_stopped_finishes_its_step_and_hands_out_nothing_more(loop) -> None:
    def stop_in_step_1(served: Served) -> None:
        if served.num_rolled == 4:  # of the six that there is room for
            served.loop.stop(signal.SIGINT)

    changes = {"buffer.max_staleness": 2, "actors.tickets_in_flight": 1}
    with loop(changes, actor=SlowActor, rank=SlowRank, at_turn=stop_in_step_1) as served:
        served.run()
    assert served.loop.stop_signal == signal.SIGINT
    assert [step.report.step for step in served.steps] == [1]
    assert served.num_rolled == 4
    checkpoint = read_checkpoint(served.folder.checkpoints / "step-000001")
    assert checkpoint.state.ledger == {"learned_below": 2, "learned_beyond": []}
    assert served.states[-1].groups_buffered == 4  # of no use to anybody: they are rolled out again after a resume


def test_a_stop_that_is_asked_for_between_two_steps_begins_no_other(loop) -> None:
    class AskedToStop:
        def __init__(self) -> None:
            self.requests = [{"stop": True}]

        def exchange(self, status: Any) -> list[dict[str, bool]]:
            return [self.requests.pop()] if len(served.steps) == 2 and self.requests else []

    with loop({"buffer.max_staleness": 1}, rank=SlowRank) as served:
        served.loop.control = AskedToStop()
        served.run()
    assert [step.report.step for step in served.steps] == [1, 2]
    assert served.states[-1].groups_buffered == 4  # enough for a step
    assert served.told.of(StopAskedFor) == [StopAskedFor()]


def test_a_stop_between_two_steps_waits_for_nothing(loop) -> None:
    def stop(served: Served) -> None:
        if served.steps:
            served.loop.stop(signal.SIGTERM)

    with loop(at_turn=stop) as served:
        served.run()
    assert len(served.steps) == 1
    assert [fact.step for fact in served.told.of(CheckpointWritten)] == [1]


def test_a_loop_that_is_stopped_before_its_first_step_writes_nothing(loop) -> None:
    with loop() as served:
        served.loop.stop(signal.SIGTERM)
        served.run()
    assert served.told.of(CheckpointWritten) == []
    assert served.num_rolled == 0


def test_the_status_is_that_of_a_second_ago_at_the_most(loop) -> None:
    ages: list[int] = []

    def compare(served: Served) -> None:
        if served.status:
            ages.append(served.states[-1].step - served.status["step"])

    class Second(Rank):
        def train(self, *step: Any) -> Any:
            return Late(1.1, super().train(*step))

    with loop(rank=Second, at_turn=compare) as served:
        served.run()
    assert set(ages) <= {0, 1}
    assert len(ages) > 4
    assert served.status["actors"]["actor-0"]["node"] == "127.0.0.1"
    assert served.status["last_step"] == served.steps[served.status["step"] - 1].metrics()


def test_a_starving_learner_gets_another_actor_and_a_full_buffer_costs_it_again(loop) -> None:
    """First the actor is slow; once there are two, the learner is."""

    def slow_are_the_actors() -> bool:
        return len(served.told.of(ActorJoined)) < 2

    class FirstSlow(Actor):
        def roll_out(self, *ticket: Any) -> Any:
            return Late(1.0 if slow_are_the_actors() else 0.0, super().roll_out(*ticket))

    class ThenSlow(Rank):
        def train(self, *step: Any) -> Any:
            return Late(0.0 if slow_are_the_actors() else 10.0, super().train(*step))

    def stop(served: Served) -> None:
        if len(served.told.of(Scaled)) == 2 and served.told.of(ActorLeft):
            served.loop.stop(signal.SIGTERM)

    changes = {
        "learner.num_steps": 100,
        "buffer.max_staleness": 1,
        "actors.autoscale": {"max": 2},
        "actors.tickets_in_flight": 1,
    }
    with loop(changes, actor=FirstSlow, rank=ThenSlow, at_turn=stop) as served:
        served.run()
    waited = "the learner waited {} of each of 3 steps"
    assert served.told.of(Scaled) == [
        Scaled(1, 2, waited.format("100%")),
        Scaled(2, 1, waited.format("0%") + ", and the buffer was 100% full"),
    ]
    assert [fact.actor for fact in served.told.of(ActorJoined)] == ["actor-0", "actor-1"]
    assert served.told.of(ActorLeft)
    after = [index for index, fact in enumerate(served.told.facts) if isinstance(fact, Scaled)]
    steps_before = [sum(isinstance(fact, StepLearned) for fact in served.told.facts[:place]) for place in after]
    assert steps_before[0] == 3
    assert steps_before[1] - steps_before[0] >= 3


def test_scores_during_training_are_those_of_their_step_and_come_from_the_actors(loop) -> None:
    changes = {"evaluation.every": 2, "actors.count": 2, "learner.num_steps": 6}
    with loop(changes, scorer=FourChunks()) as served:
        served.run()
    assert served.told.of(Scored) == [
        Scored(step, {f"chunk_{number}": float(step) for number in range(4)}) for step in (2, 4)
    ]
    assert [fact.path.name for fact in served.told.of(PictureSaved)] == ["step-000002.png", "step-000004.png"]
    assert all(fact.path.is_file() for fact in served.told.of(PictureSaved))
    assert served.tickets == list(range(12))


def test_the_result_is_left_to_who_scores_it_after_the_run(loop) -> None:
    with loop({"evaluation.every": 2, "learner.num_steps": 2}, scorer=FourChunks()) as served:
        served.run()
    assert served.told.of(Scored) == []


def test_a_lost_actor_gives_its_chunk_of_an_evaluation_back(loop) -> None:
    class DiesAtChunk1(Actor):
        def evaluate(self, chunk: str, *policy: Any) -> Any:
            if chunk == "chunk 1" and self.name == "actor-0":
                raise DiesError("out of memory")
            return super().evaluate(chunk, *policy)

    with loop({"evaluation.every": 2}, actor=DiesAtChunk1, scorer=FourChunks()) as served:
        served.run()
    assert [(fact.actor, fact.reason) for fact in served.told.of(ActorLost)] == [("actor-0", "out of memory")]
    assert [(fact.step, len(fact.scores)) for fact in served.told.of(Scored)] == [(2, 4), (4, 4)]
    assert served.tickets == ALL


def test_an_evaluation_that_is_at_work_when_the_loop_is_stopped_is_given_up(loop) -> None:
    class Hangs(Actor):
        def evaluate(self, *chunk: Any) -> Any:
            return Late(100.0, (1, None))

    def stop(served: Served) -> None:
        if len(served.steps) == 3:
            served.loop.stop(signal.SIGTERM)

    with loop({"evaluation.every": 2}, actor=Hangs, scorer=FourChunks(), at_turn=stop) as served:
        served.run()
    assert served.told.of(Scored) == []
    assert [fact.step for fact in served.told.of(CheckpointWritten)] == [3]


def test_a_scale_far_beyond_the_cluster_is_refused_and_told(loop) -> None:
    def ask(served: Served) -> None:
        if len(served.states) == 1:
            served.ask({"scale": 99999})

    with loop({"learner.num_steps": 4}, rank=SlowRank, at_turn=ask) as served:
        served.run()
    (refused,) = served.told.of(ScaleRefused)
    assert refused.reason.startswith("99999 reward actors are far beyond this cluster, which holds 2")
    assert {(state.actors_wanted, state.actors_most) for state in served.states} == {(1, 16)}
