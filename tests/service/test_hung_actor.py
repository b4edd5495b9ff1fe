"""An actor that hangs is replaced after its lease, and what it answers later is refused."""

import time
from pathlib import Path

import pytest
import ray

from actors import rollout_pool
from actors.rollout_actor import READING, RolloutActor
from deploy.runs.local_run import run_local
from deploy.service.driver import train
from tests.service.reading import digest, events, learned_tickets

pytestmark = pytest.mark.ray

LEASE_SECONDS = 20.0  # more than the first ticket takes, which reads the data set


@pytest.fixture
def hangs(monkeypatch, tmp_path: Path):
    """hangs(seconds) has the first actor sleep that long, once, in the middle of ticket 9."""

    def install(seconds: float) -> None:
        class Hangs(RolloutActor):
            def roll_out(self, ticket, version, snapshot):
                result = super().roll_out(ticket, version, snapshot)
                if ticket.ticket_id == 9 and self._name == "actor-0":
                    time.sleep(seconds)
                return result

        remote = ray.remote(concurrency_groups={READING: 1})(Hangs)
        monkeypatch.setattr(rollout_pool, "_RemoteActor", remote)

    return install


STEPS = {
    "learner.num_steps": 6,
    "actors.ticket_timeout_seconds": LEASE_SECONDS,
    "actors.tickets_in_flight": 1,
}


def test_a_hung_actor_is_replaced_after_its_lease(small_run, hangs):
    hangs(3600)
    run = train(small_run("hung", STEPS)).folder.path
    (lost,) = (event for event in events(run, "actor_lost") if event["actor"] == "actor-0")
    assert lost["reason"] == "actor-0 has not answered for 20 s"
    assert lost["tickets"] == [9]
    assert learned_tickets(run) == list(range(6 * 4))
    assert digest(run) == digest(run_local(small_run("local", STEPS)).path)


@pytest.mark.chaos
def test_what_a_hung_actor_answers_after_its_lease_is_refused(small_run, hangs, monkeypatch):
    """As from a node that the cluster cannot reach for a while: Ray is not able to kill it, and it answers."""
    hangs(LEASE_SECONDS + 3)
    monkeypatch.setattr(rollout_pool.ray, "kill", lambda actor: None)
    run = train(small_run("late", {"actors.num_cpus": 0.25} | STEPS)).folder.path
    assert "actor-0" in {event["actor"] for event in events(run, "actor_lost")}
    refused = [(event["actor"], event["ticket"]) for event in events(run, "result_refused")]
    assert ("actor-0", 9) in refused
    assert learned_tickets(run) == list(range(6 * 4))
    assert digest(run) == digest(run_local(small_run("local", STEPS)).path)
