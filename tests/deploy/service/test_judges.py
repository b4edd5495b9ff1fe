"""Judge actors in the driver's loop, on a stand-in for Ray: who judges what, and what a lost judge costs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import ClusterError
from common.facts import ActorLost, ResultRefused, StepLearned, TicketDelivered, TicketDropped
from common.judge_facts import JudgeJoined, JudgeLeft, JudgeLost, JudgePending, JudgesNotScaled, JudgesScaled
from common.request_facts import Scaled
from common.types import SkippedImage, WorkTicket
from deploy.runs.status_text import status_text
from tests.deploy.service.scripted import Actor, Judge, Rank, Served, serving
from tests.deploy.service.test_colocated import Both
from tests.fakes import DiesError, FakeActor, FakeRay, Late, Reference

STEPS = 5
ALL = list(range(2 * STEPS))  # two tickets a step
JUDGED = {"reward.python": "tests.own_terms:term", "reward.actors.count": 1, "learner.num_steps": STEPS}


@pytest.fixture
def loop(tiny_recipe: Recipe, tmp_path: Path) -> Any:
    def make(changes: dict[str, Any] | None = None, **parts: Any) -> Any:
        return serving(with_changes(tiny_recipe, JUDGED | (changes or {})), tmp_path / "run", **parts)

    return make


class SlowJudge(Judge):
    def judge(self, *given: Any) -> Any:
        return Late(1.0, super().judge(*given))


def judges_of(ray: FakeRay) -> list[FakeActor]:
    return [actor for actor in ray.actors if isinstance(actor.self, Judge)]


def number_of_judge(ray: FakeRay) -> int:
    """Of the only one, among all actors: ranks come first, then reward actors."""
    (number,) = [n for n, actor in enumerate(ray.actors) if issubclass(actor.made_by[0], Judge)]
    return number


class LooksAt(FakeRay):
    """Keeps what the driver waits for, which is what Ray would bring to its node."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_for: list[Any] = []

    def ready(self, references: Sequence[Reference], timeout: float = 0.0, count: int = 1) -> list[Reference]:
        if timeout < 100:  # an actor gets its arguments without a timeout
            self.waited_for += [each.value for each in references if isinstance(each.value, str)]
        return super().ready(references, timeout, count)


def test_every_ticket_is_judged_once_and_its_pictures_do_not_pass_through_the_driver(loop) -> None:
    ray = LooksAt()
    with loop({"reward.actors.count": 2}, ray=ray, judge=SlowJudge) as served:
        served.run()
    assert served.tickets == ALL
    assert {words.rpartition(" by ")[2] for words in served.learned} == {"judge-0", "judge-1"}
    assert served.num_rolled == len(ALL)
    assert [fact.actor for fact in served.told.of(JudgeJoined)] == ["judge-0", "judge-1"]
    delivered = served.told.of(TicketDelivered)
    assert {fact.judge for fact in delivered} == {"judge-0", "judge-1"}
    assert {fact.actor for fact in delivered} == {"actor-0"}
    assert {step.judge_seconds for step in served.steps} == {2 * 0.5}
    groups = [words for words in ray.waited_for if words.startswith("ticket")]
    assert groups
    assert all(" by judge-" in words for words in groups)
    assert {step.num_judges for step in served.steps} == {2}


def test_without_judges_the_pool_is_not_there(loop) -> None:
    with loop({"reward.actors.count": 0}) as served:
        served.run()
    assert served.tickets == ALL
    assert judges_of(served.ray) == []
    assert {words.rpartition(" by ")[2] for words in served.learned} == {"actor-0"}
    assert served.loop.status_now()["judges"] is None


def test_an_actor_rolls_out_its_next_ticket_while_the_one_before_is_judged(loop) -> None:
    class SlowActor(Actor):
        def roll_out(self, *given: Any) -> Any:
            return Late(1.0, super().roll_out(*given))

    with loop({"buffer.max_staleness": 4}, actor=SlowActor, judge=SlowJudge) as served:
        served.run()
    assert served.tickets == ALL
    assert served.ray.now == pytest.approx(len(ALL) + 1)  # one after the other it would be twice as long


def test_a_judge_that_dies_over_a_ticket_costs_only_another_judging(loop) -> None:
    ray = FakeRay()
    ray.instead[2, "judge", 1] = DiesError("out of memory")
    with loop(ray=ray, judge=SlowJudge) as served:
        assert number_of_judge(ray) == 2
        served.run()
    assert served.tickets == ALL
    assert served.num_rolled == len(ALL)
    (lost,) = served.told.of(JudgeLost)
    assert (lost.actor, lost.reason, sorted(lost.tickets)) == ("judge-0", "out of memory", [0, 1])
    assert [fact.actor for fact in served.told.of(JudgeJoined)] == ["judge-0", "judge-1"]
    assert served.told.of(ActorLost) == served.told.of(ResultRefused) == served.told.of(TicketDropped) == []
    assert {words.rpartition(" by ")[2] for words in served.learned} == {"judge-1"}
    assert served.states[-1].judges.restarts == 1


def test_a_judge_that_hangs_is_replaced_after_its_time(loop) -> None:
    ray = FakeRay()
    ray.instead[2, "judge", 1] = Late(10_000.0)
    changes = {"reward.actors.ticket_timeout_seconds": 20, "reward.actors.tickets_in_flight": 1}
    with loop(changes, ray=ray) as served:
        served.run()
    assert served.tickets == ALL
    assert served.num_rolled == len(ALL)
    (lost,) = served.told.of(JudgeLost)
    assert lost.reason == "judge-0 has not answered for 20 s"
    assert 20 < ray.now < 30
    assert ray.actors[2] in ray.killed


def test_judges_that_die_again_and_again_end_the_run(loop) -> None:
    class Dies(Judge):
        def judge(self, *given: Any) -> Any:
            raise DiesError("out of memory")

    with (
        loop({"reward.actors.max_restarts": 2}, judge=Dies) as served,
        pytest.raises(
            ClusterError, match=r"^3 judge actors were lost, more than reward\.actors\.max_restarts \(2\)"
        ),
    ):
        served.run()


def test_what_a_judge_raises_ends_the_run(loop) -> None:
    class Raises(Judge):
        def judge(self, *given: Any) -> Any:
            raise ValueError("no such picture")

    with loop(judge=Raises) as served, pytest.raises(ValueError, match="no such picture"):
        served.run()


def test_an_actor_that_dies_while_its_ticket_is_judged_has_not_lost_it(loop) -> None:
    ray = FakeRay()
    ray.instead[1, "roll_out", 2] = DiesError("killed")  # its first two tickets wait for the judge
    with loop({"buffer.max_staleness": 1}, ray=ray, judge=SlowJudge) as served:
        served.run()
    assert served.tickets == ALL
    (lost,) = served.told.of(ActorLost)
    assert 0 not in lost.tickets
    assert served.num_rolled == len(ALL) + len(lost.tickets)


def test_a_ticket_whose_pictures_are_lost_with_a_node_is_rolled_out_again(loop) -> None:
    ray = FakeRay()

    class Forgets(Judge):
        def judge(self, receipt: Any, unjudged: list[Any]) -> Any:
            if receipt.ticket_id == 3 and isinstance(unjudged[0].value, str) and not lost:
                lost.append(receipt.ticket_id)
                ray.lose(unjudged[0])
            return super().judge(receipt, unjudged)

    lost: list[int] = []
    with loop(ray=ray, judge=Forgets) as served:
        served.run()
    assert served.tickets == ALL
    (dropped,) = served.told.of(TicketDropped)
    assert (dropped.ticket, dropped.reason) == (3, "pictures lost with a node")
    assert served.num_rolled == len(ALL) + 1


def test_images_that_are_all_broken_need_no_judge(loop) -> None:
    class Broken(Actor):
        def rolled(self, ticket: WorkTicket, skipped: Any = ()) -> Any:
            broken = tuple(SkippedImage(index, "a.png", "no picture") for index in ticket.sample_indices)
            return super().rolled(ticket, broken if ticket.ticket_id == 2 else ())

    with loop(actor=Broken) as served:
        served.run()
    assert sum(len(actor.asked) - 1 for actor in judges_of(served.ray)) == len(ALL) - 1
    assert {fact.receipt.ticket_id for fact in served.told.of(TicketDelivered) if not fact.judge} == {2}


def scales(*requests: tuple[int, int]) -> Any:
    """What asks for a number of judges once so many steps are learned."""
    left = list(requests)

    def at_turn(served: Served) -> None:
        if left and len(served.told.of(StepLearned)) >= left[0][0]:
            served.ask({"scale_judges": left.pop(0)[1]})

    return at_turn


class SlowRank(Rank):
    def train(self, pieces: Any, num_groups: int) -> Any:
        return Late(3.0, super().train(pieces, num_groups))


def test_judges_are_scaled_up_and_down_in_mid_run(loop) -> None:
    with loop(rank=SlowRank, judge=SlowJudge, at_turn=scales((1, 3), (3, 1))) as served:
        served.run()
    assert served.tickets == ALL
    assert [(fact.before, fact.after) for fact in served.told.of(JudgesScaled)] == [(1, 3), (3, 1)]
    assert [fact.actor for fact in served.told.of(JudgeJoined)] == ["judge-0", "judge-1", "judge-2"]
    assert len(served.told.of(JudgeLeft)) == 2
    assert served.told.of(JudgeLost) == []
    assert served.num_rolled == len(ALL)
    assert {state.judges.ready for state in served.states} >= {1, 3}


BOTH = {
    "learner.num_steps": 30,
    "buffer.max_staleness": 1,
    "actors.autoscale": {"max": 3},
    "reward.actors.autoscale": {"max": 3},
}
RANK_SECONDS = 0.5  # for a step of two tickets


class BusyRank(Rank):
    def train(self, pieces: Any, num_groups: int) -> Any:
        return Late(RANK_SECONDS, super().train(pieces, num_groups))


def test_slow_judges_become_more_and_reward_actors_do_not(loop) -> None:
    with loop(BOTH, rank=BusyRank, judge=SlowJudge) as served:
        served.run()
    assert [(fact.before, fact.after) for fact in served.told.of(JudgesScaled)] == [(1, 2), (2, 3)]
    waited = "the learner waited {} of each of 3 steps while tickets waited for a judge"
    assert [fact.reason for fact in served.told.of(JudgesScaled)] == [waited.format("75%"), waited.format("50%")]
    assert served.told.of(Scaled) == []
    assert served.loop.pool.num_wanted == 1


def test_while_a_fixed_number_of_judges_is_the_limit_no_reward_actor_is_added(loop) -> None:
    with loop(BOTH | {"reward.actors.autoscale": None}, rank=BusyRank, judge=SlowJudge) as served:
        served.run()
    assert served.steps[-1].wait_seconds > 1
    assert served.told.of(Scaled) == served.told.of(JudgesScaled) == []


def test_neither_is_one_added_where_each_ticket_has_a_judge_already(loop) -> None:
    changes = {"reward.actors.count": 2, "buffer.max_staleness": 0, "reward.actors.autoscale": {"max": 3}}
    with loop(BOTH | changes, rank=BusyRank, judge=SlowJudge) as served:
        served.run()
    assert served.told.of(Scaled) == served.told.of(JudgesScaled) == []


def test_slow_reward_actors_become_more_and_judges_do_not(loop) -> None:
    class SlowActor(Actor):
        def roll_out(self, *given: Any) -> Any:
            return Late(1.0, super().roll_out(*given))

    with loop(BOTH, rank=BusyRank, actor=SlowActor) as served:
        served.run()
    assert [(fact.before, fact.after) for fact in served.told.of(Scaled)] == [(1, 2), (2, 3)]
    assert served.told.of(JudgesScaled) == []


def test_judges_that_the_learner_does_not_need_leave(loop) -> None:
    class SlowestRank(Rank):
        def train(self, pieces: Any, num_groups: int) -> Any:
            return Late(10.0, super().train(pieces, num_groups))

    with loop(BOTH | {"reward.actors.count": 3}, rank=SlowestRank, judge=SlowJudge) as served:
        served.run()
    assert [(fact.before, fact.after) for fact in served.told.of(JudgesScaled)] == [(3, 2), (2, 1)]
    assert served.told.of(JudgesScaled)[0].reason == (
        "the learner waited 0% of each of 3 steps, and judges were at work 3% of the time"
    )
    assert len(served.told.of(JudgeLeft)) == 2


def test_more_judges_than_the_cluster_will_ever_hold_are_refused(loop) -> None:
    with loop(rank=SlowRank, at_turn=scales((1, 999))) as served:
        served.run()
    (refused,) = served.told.of(JudgesNotScaled)
    assert refused.reason.startswith("999 judge actors are far beyond this cluster, which holds 2 ")
    assert served.tickets == ALL


def test_a_judge_that_is_not_placed_is_named_and_the_tickets_wait_for_it(loop) -> None:
    class Unplaced(Judge):
        def describe(self) -> Any:
            return Late(45.0, super().describe())

    with pytest.raises(ClusterError) as raised, loop(judge=Unplaced):
        pass
    assert str(raised.value).startswith("no judge actor was ready within 10 s: each needs 1 CPU")
    assert "lower reward.actors.count (1)" in str(raised.value)
    with loop({"reward.actors.count": 2}, judge=SometimesLate) as served:
        served.run()
    assert [fact.actor for fact in served.told.of(JudgePending)] == ["judge-1"]
    assert served.tickets == ALL


class SometimesLate(Judge):
    def describe(self) -> Any:
        return Late(500.0, super().describe()) if self.name == "judge-1" else super().describe()


class Colocated(Both):
    def roll_out(self, ticket: WorkTicket, version: int, snapshot: list[Any]) -> Any:
        receipt, groups = super().roll_out(ticket, version, snapshot)
        return replace(receipt, awaits_judges=True), groups


COLOCATED = {"placement": "colocated", "actors.count": 0, "learner.num_ranks": 2}


def test_ranks_that_roll_out_have_their_tickets_judged_too(loop) -> None:
    with loop(COLOCATED, rank=Colocated) as served:
        served.run()
    assert sorted(ticket for step in served.steps for ticket in step.tickets) == ALL
    assert {fact.judge for fact in served.told.of(TicketDelivered)} == {"judge-0"}


def test_beside_ranks_that_roll_out_judges_become_as_many_as_tickets_wait_for(loop) -> None:
    changes = COLOCATED | {"learner.num_steps": 12, "reward.actors.autoscale": {"max": 4}}
    with loop(changes, rank=Colocated, judge=SlowJudge) as served:
        served.run()
    assert [(fact.before, fact.after) for fact in served.told.of(JudgesScaled)] == [(1, 2)]  # two tickets a step


def test_status_has_the_judges_and_what_waits_for_them(loop) -> None:
    kept: list[dict[str, Any]] = []
    with loop(judge=SlowJudge, at_turn=lambda served: kept.append(served.loop.status_now())) as served:
        served.run()
    judges = [status["judges"] for status in kept]
    assert max(each["tickets_waiting"] for each in judges) == 0  # a judge holds two, all that there are
    assert max(each["states"]["judge-0"]["calls"] for each in judges) == 2
    last = judges[-1]
    assert (last["wanted"], last["restarts"], last["most"]) == (1, 0, 16)
    assert last["states"]["judge-0"]["groups_per_second"] == pytest.approx(2, rel=0.5)
    text = status_text(kept[-1])
    assert "judges      1 ready, 1 wanted, 0 restarts; 0 tickets wait for one" in text
    assert "  judge    node       code " in text
