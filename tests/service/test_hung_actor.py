"""An actor that hangs is replaced after its lease, and what it answers later is refused."""

import time

import pytest

from actors.rollout_actor import RolloutActor
from common.ray_calls_group import RayCalls
from deploy.runs.local_run import run_local
from deploy.service.driver import Parts, train
from tests.service.conftest import JoinedSession
from tests.service.reading import digest, events, learned_tickets

pytestmark = [pytest.mark.ray, pytest.mark.chaos]

LEASE_SECONDS = 20.0  # more than the first ticket takes, which reads the data set
STEPS = {
    "learner.num_steps": 6,
    "actors.ticket_timeout_seconds": LEASE_SECONDS,
    "actors.tickets_in_flight": 1,
}


def that_hangs(seconds: float) -> type:
    """Actors of which the first sleeps that long, once, in the middle of ticket 9."""

    class Hangs(RolloutActor):
        def roll_out(self, ticket, version, snapshot):
            result = super().roll_out(ticket, version, snapshot)
            if ticket.ticket_id == 9 and self._name == "actor-0":
                time.sleep(seconds)
            return result

    return Hangs


class CannotKill(RayCalls):
    """As with a node that the cluster cannot reach for a while."""

    def kill(self, actor) -> None:
        """It lives on."""


def test_a_hung_actor_is_replaced_after_its_lease(small_run, serve):
    run = serve(small_run("hung", STEPS), rollout_actor=that_hangs(3600)).folder.path
    (lost,) = (event for event in events(run, "actor_lost") if event["actor"] == "actor-0")
    assert lost["reason"] == "actor-0 has not answered for 20 s"
    assert lost["tickets"] == [9]
    assert learned_tickets(run) == list(range(6 * 4))
    assert digest(run) == digest(run_local(small_run("local", STEPS)).path)


def test_what_a_hung_actor_answers_after_its_lease_is_refused(small_run, shared_ray):
    recipe = small_run("late", {"actors.num_cpus": 0.25} | STEPS)
    hangs = that_hangs(LEASE_SECONDS + 3)
    run = train(recipe, Parts(CannotKill(), JoinedSession(), rollout_actor=hangs)).folder.path
    assert "actor-0" in {event["actor"] for event in events(run, "actor_lost")}
    refused = [(event["actor"], event["ticket"]) for event in events(run, "result_refused")]
    assert ("actor-0", 9) in refused
    assert learned_tickets(run) == list(range(6 * 4))
    assert digest(run) == digest(run_local(small_run("local", STEPS)).path)
