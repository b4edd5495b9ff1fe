"""The whole service in one process, on a stand-in for Ray: what a run leaves, survives and refuses."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from actors.rollout_actor import RolloutActor
from common.config.recipe import Recipe
from common.errors import ClusterError, LearnerLostError, RecipeError
from common.facts import (
    ActorJoined,
    ActorLost,
    CheckpointWritten,
    Ended,
    LearnerLost,
    Resumed,
    StepLearned,
    TicketDelivered,
)
from deploy.runs.local_run import run_local
from deploy.service.control_actor import ControlActor, control_name
from deploy.service.driver import Outcome, Parts, train
from learner.learner_actor import LearnerActor
from tests.fakes import DiesError, FakeRay, FakeSession, Told
from tests.service.reading import digest, events, learned_tickets, lines, summary

STEPS = 5


class Stops:
    """A sink that asks the run to stop once a step is learned."""

    def __init__(self, step: int):
        self._step = step

    def record(self, fact: Any) -> None:
        if isinstance(fact, StepLearned) and fact.report.step == self._step:
            signal.raise_signal(signal.SIGTERM)


def served(recipe: Recipe, ray: FakeRay | None = None, *sinks: Any, **actors: type) -> Outcome:
    ray = ray or FakeRay()
    return train(recipe, Parts(ray=ray, session=FakeSession(ray), sinks=sinks, **actors))


@pytest.mark.parametrize("changes", [{}, {"advantage.credit": "token"}])
def test_one_and_two_actors_give_the_losses_and_weights_of_local_bit_for_bit(small_run, changes):
    local = run_local(small_run("local", changes)).path
    losses = [line["loss"] for line in lines(local / "metrics.jsonl")]
    assert len(losses) == STEPS
    for count in (1, 2):
        run = served(small_run(f"served-{count}", changes | {"actors.count": count})).folder.path
        assert [line["loss"] for line in lines(run / "metrics.jsonl")] == pytest.approx(losses, rel=0, abs=1e-6)
        assert digest(run) == digest(local)
        assert learned_tickets(run) == list(range(STEPS * 4))


def test_a_run_tells_what_happens_in_order_and_leaves_its_folder(small_run) -> None:
    told = Told()
    outcome = served(small_run("run", {"checkpoint.every": 3}), None, told)
    names = told.names
    assert names[:3] == ["started", "rank_joined", "actor_joined"]
    assert names[-1] == "succeeded"
    assert [fact.step for fact in told.of(CheckpointWritten)] == [3, 5]
    assert len(told.of(TicketDelivered)) == STEPS * 4
    assert told.of(Resumed) == []
    assert outcome.stop_signal is None
    left = {path.name for path in outcome.folder.path.iterdir()}
    assert left == {"recipe.json", "metrics.jsonl", "events.jsonl", "checkpoints", "summary.json"}


def test_a_stopped_run_goes_on_where_it_was_and_ends_as_an_undisturbed_one(small_run) -> None:
    stopped = served(small_run("run"), None, Stops(2))
    assert stopped.stop_signal == signal.SIGTERM
    assert (stopped.summary["status"], stopped.summary["steps"]) == ("stopped", 2)
    told = Told()
    run = served(small_run("run"), None, told).folder.path
    (resumed,) = told.of(Resumed)
    assert resumed.step == 2
    assert [fact.report.step for fact in told.of(StepLearned)] == [3, 4, 5]
    assert digest(run) == digest(run_local(small_run("local")).path)
    assert learned_tickets(run) == list(range(STEPS * 4))


def test_the_loss_of_every_rank_begins_the_service_again_from_the_newest_checkpoint(small_run) -> None:
    class DiesInStep5(LearnerActor):
        has_died = False

        def train(self, pieces, num_groups):
            if self.step() == 4 and not DiesInStep5.has_died:
                DiesInStep5.has_died = True
                raise DiesError("out of memory")
            return super().train(pieces, num_groups)

    told = Told()
    run = served(small_run("run", {"checkpoint.every": 3}), None, told, learner_actor=DiesInStep5).folder.path
    (lost,) = told.of(LearnerLost)
    assert lost.resumed_from.endswith("step-000003")
    assert lost.reason.startswith("all 1 learner ranks were lost in step 5")
    assert [fact.step for fact in told.of(Resumed)] == [3]
    assert [line["step"] for line in lines(run / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    assert digest(run) == digest(run_local(small_run("local")).path)
    assert learned_tickets(run) == list(range(STEPS * 4))


def test_a_learner_that_dies_before_its_first_checkpoint_again_and_again_ends_the_run(small_run) -> None:
    class Dying(LearnerActor):
        def train(self, pieces, num_groups):
            raise DiesError

    told = Told()
    with pytest.raises(LearnerLostError, match="all 1 learner ranks were lost in step 1"):
        served(small_run("run"), None, told, learner_actor=Dying)
    assert len(told.of(LearnerLost)) == 2
    (ended,) = told.of(Ended)
    assert ended.summary["error"].startswith("LearnerLostError: all 1 learner ranks")


def test_an_actor_that_dies_is_replaced_and_changes_nothing(small_run) -> None:
    class DiesAtTicket9(RolloutActor):
        has_died = False

        def roll_out(self, ticket, version, snapshot):
            if ticket.ticket_id == 9 and not DiesAtTicket9.has_died:
                DiesAtTicket9.has_died = True
                raise DiesError("killed")
            return super().roll_out(ticket, version, snapshot)

    told = Told()
    run = served(small_run("run"), None, told, rollout_actor=DiesAtTicket9).folder.path
    (lost,) = told.of(ActorLost)
    assert (lost.actor, lost.reason, 9 in lost.tickets) == ("actor-0", "killed", True)
    assert [fact.actor for fact in told.of(ActorJoined)] == ["actor-0", "actor-1"]
    assert summary(run)["actor_restarts"] == 1
    assert digest(run) == digest(run_local(small_run("local")).path)
    assert learned_tickets(run) == list(range(STEPS * 4))


def test_a_second_run_of_one_name_on_the_cluster_is_refused(small_run) -> None:
    ray = FakeRay()
    ray.start(ControlActor, name=control_name("run"))
    with pytest.raises(
        ClusterError, match=r"a run named run is at work on this cluster: choose another run\.name"
    ):
        served(small_run("run"), ray)


@pytest.mark.parametrize("key", ["seed", "group.size", "actors.images_per_ticket"])
def test_a_checkpoint_of_another_run_is_refused_by_the_key_that_differs(small_run, key: str) -> None:
    served(small_run("run"))
    with pytest.raises(RecipeError, match=rf"was made with another {key.removesuffix('.size')}: resume with"):
        served(small_run("run", {key: 4 if key == "actors.images_per_ticket" else 5}))


def test_a_broken_sink_is_told_of_and_stops_nothing(small_run) -> None:
    class Broken:
        def record(self, fact: Any) -> None:
            raise OSError("disk full")

    outcome = served(small_run("run"), None, Broken())
    assert outcome.summary["status"] == "succeeded"
    (event,) = events(outcome.folder.path, "sink_failed")
    assert (event["sink"], event["reason"]) == ("Broken", "OSError: disk full")
    assert json.loads((Path(outcome.folder.path) / "summary.json").read_text())["steps"] == STEPS
