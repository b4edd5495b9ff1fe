"""The account of a run's samples under any order of events.

The model plays a driver: actors roll tickets out, die and come too late, steps are learned and published, the
run is checkpointed and killed. What the ledger promises must hold all along.
"""

import json
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from common.buffer.ledger import Ledger
from common.types import WorkTicket

ACTORS = ("red", "blue", "green")
JUDGES = "judges"  # never lost: what one of them had is another's


seldom = st.integers(0, 9).map(lambda drawn: drawn == 9)


@dataclass
class Saved:
    """What a checkpoint would hold."""

    state: str
    version: int
    steps: list[list[int]]


class Run(RuleBasedStateMachine):
    """A driver that does whatever hypothesis thinks of."""

    @initialize(
        num_steps=st.integers(1, 5),
        per_step=st.integers(1, 3),
        size=st.integers(1, 3),
        staleness=st.integers(0, 3),
    )
    def start(self, num_steps: int, per_step: int, size: int, staleness: int) -> None:
        self.ledger = Ledger(num_steps, per_step, size, staleness)
        self.version = 0  # of the learner
        self.published = 0
        self.steps: list[list[int]] = []  # the tickets of each step that is done
        self.running: list[int] = []
        self.held: list[tuple[str, int, int]] = []  # actor incarnation, ticket, version it is rolled out with
        self.lost: list[tuple[str, int]] = []  # what lost incarnations may still deliver
        self.incarnation = dict.fromkeys(ACTORS, 0)
        self.saved = Saved(json.dumps(self.ledger.state()), 0, [])

    def name(self, actor: str) -> str:
        return f"{actor}-{self.incarnation[actor]}"

    @rule(actors=st.lists(st.sampled_from(ACTORS), max_size=6), data=st.data())
    def work(self, actors: list[str], data: st.DataObject) -> None:
        """Some actors ask for tickets; some tickets that are out are delivered, in any order."""
        for actor in actors:
            ticket = self.ledger.admit(self.name(actor))
            if ticket is not None:
                assert ticket.ticket_id not in [held for _, held, _ in self.held]
                self.held.append((self.name(actor), ticket.ticket_id, self.published))
        order = data.draw(st.permutations(self.held))
        count = data.draw(st.integers(0, len(order)))
        for holder, held, version in order[:count]:
            made_by = data.draw(st.integers(version, self.published))  # the actor may have pulled newer weights
            assert self.ledger.deliver(held, holder, made_by)
        self.held = order[count:]

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def hand_over(self, data: st.DataObject) -> None:
        """A ticket is rolled out, and judges are to complete it: its actor may now be lost."""
        entry = data.draw(st.sampled_from(self.held))
        holder, ticket, version = entry
        assert self.ledger.pass_on(ticket, holder, JUDGES)
        assert not self.ledger.pass_on(ticket, holder, JUDGES) or holder == JUDGES
        self.held[self.held.index(entry)] = (JUDGES, ticket, version)

    @rule(actor=st.sampled_from(ACTORS), is_lost=seldom)
    def lose_an_actor(self, actor: str, is_lost: bool) -> None:
        if not is_lost:
            return
        gone = self.name(actor)
        own = [ticket for holder, ticket, _ in self.held if holder == gone]
        assert sorted(self.ledger.revoke(gone)) == sorted(own)
        self.held = [entry for entry in self.held if entry[0] != gone]
        self.lost += [(gone, ticket) for ticket in own]
        self.incarnation[actor] += 1

    @precondition(lambda self: self.lost)
    @rule(data=st.data())
    def a_lost_actor_delivers_after_all(self, data: st.DataObject) -> None:
        actor, ticket = data.draw(st.sampled_from(self.lost))
        before = dict(self.ledger.buffered)
        assert not self.ledger.pass_on(ticket, actor, JUDGES)
        assert not self.ledger.deliver(ticket, actor, self.version)
        assert self.ledger.buffered == before

    @rule(is_quick=st.booleans(), is_published=st.booleans())
    def learn(self, is_quick: bool, is_published: bool) -> None:
        """End the step that runs, start the next, and end that one too if it is quick; publish, now or later."""
        self.finish()
        if is_published:
            self.publish()
        self.ledger.discard(self.ledger.stale(self.version))
        waiting = dict(self.ledger.buffered)
        taken = self.ledger.take(self.version)
        if taken is None:
            assert len(waiting) < self.ledger.tickets_per_step
            return
        assert len(taken) == self.ledger.tickets_per_step
        assert all(0 <= self.version - waiting[ticket] <= self.ledger.max_staleness for ticket in taken)
        self.running = taken
        if is_quick:
            self.finish()

    def finish(self) -> None:
        if self.running:
            self.version += 1
            self.ledger.learn(self.running)
            self.steps.append(self.running)
            self.running = []

    def publish(self) -> None:
        self.published = self.version
        self.ledger.release()

    @precondition(lambda self: not self.running)
    @rule()
    def save_a_checkpoint(self) -> None:
        self.saved = Saved(json.dumps(self.ledger.state()), self.version, list(self.steps))

    @rule(is_killed=seldom)
    def die_and_resume(self, is_killed: bool) -> None:
        if not is_killed:
            return
        old = self.ledger
        self.ledger = Ledger(old.num_steps, old.tickets_per_step, old.samples_per_ticket, old.max_staleness)
        self.ledger.restore(json.loads(self.saved.state))
        self.version, self.steps, self.running = self.saved.version, list(self.saved.steps), []
        self.published = self.version
        self.held.clear()
        self.lost.clear()
        for actor in ACTORS:
            self.incarnation[actor] += 1

    @invariant()
    def no_more_slots_than_there_are(self) -> None:
        ledger = self.ledger
        unpublished = [ticket for step in self.steps[self.published :] for ticket in step]
        charged = [*ledger.out, *ledger.buffered, *ledger.taken, *unpublished]
        assert len(set(charged)) == len(charged) <= ledger.capacity

    @invariant()
    def nothing_is_learned_twice_and_the_count_is_kept(self) -> None:
        learned = [ticket for step in self.steps for ticket in step]
        assert len(set(learned)) == len(learned) == self.ledger.num_learned

    @invariant()
    def strictly_on_policy_steps_learn_tickets_in_order(self) -> None:
        if self.ledger.max_staleness == 0:
            learned = [ticket for step in self.steps for ticket in step]
            assert learned == list(range(len(learned)))

    def teardown(self) -> None:
        """Judges and one honest actor finish the run: then every ticket was learned exactly once."""
        if not hasattr(self, "ledger"):
            return
        for holder, ticket_id, version in self.held:
            if holder == JUDGES:
                assert self.ledger.deliver(ticket_id, JUDGES, version)
        for actor in ACTORS:
            self.ledger.revoke(self.name(actor))
        self.finish()
        self.publish()
        while len(self.steps) < self.ledger.num_steps:
            done = len(self.steps)
            self.ledger.discard(self.ledger.stale(self.version))
            while (ticket := self.ledger.admit("last")) is not None:
                self.ledger.deliver(ticket.ticket_id, "last", self.version)
            self.learn(is_quick=True, is_published=True)
            self.publish()
            assert len(self.steps) > done, "the run has come to a stop"
        learned = sorted(ticket for step in self.steps for ticket in step)
        assert learned == list(range(self.ledger.num_tickets))
        assert self.ledger.admit("last") is None


TestRun = Run.TestCase
TestRun.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def admitted(ledger: Ledger) -> list[int]:
    """Every ticket that `ledger` now has a slot for."""
    tickets = []
    while (ticket := ledger.admit("actor")) is not None:
        tickets.append(ticket.ticket_id)
    return tickets


@given(per_step=st.integers(1, 4), staleness=st.integers(0, 4))
@settings(deadline=None)
def test_a_ticket_that_none_overtakes_is_never_stale(per_step: int, staleness: int) -> None:
    """Actors as far ahead as the slots allow, all deliveries in order: the worst case without a straggler."""
    ledger = Ledger(num_steps=8, tickets_per_step=per_step, samples_per_ticket=1, max_staleness=staleness)
    oldest = 0
    for version in range(8):
        for ticket in admitted(ledger):
            ledger.deliver(ticket, "actor", version)
        oldest = max(oldest, version - min(ledger.buffered.values()))
        assert ledger.stale(version) == []
        taken = ledger.take(version)
        assert taken is not None
        ledger.learn(taken)
        ledger.release()
    assert oldest == staleness, "actors did not work ahead"


def test_tickets_hold_consecutive_samples() -> None:
    ledger = Ledger(num_steps=1, tickets_per_step=2, samples_per_ticket=3, max_staleness=0)
    assert ledger.admit("red") == WorkTicket(0, (0, 1, 2))
    assert ledger.admit("red") == WorkTicket(1, (3, 4, 5))
    assert ledger.admit("red") is None


def test_strictly_on_policy_steps_are_in_order_whatever_the_order_of_deliveries() -> None:
    ledger = Ledger(num_steps=1, tickets_per_step=3, samples_per_ticket=1, max_staleness=0)
    admitted(ledger)
    for ticket in (2, 0):
        ledger.deliver(ticket, "actor", 0)
    assert ledger.take(0) is None
    ledger.deliver(1, "actor", 0)
    assert ledger.take(0) == [0, 1, 2]


def test_slots_reopen_when_the_step_is_published_and_not_before() -> None:
    ledger = Ledger(num_steps=3, tickets_per_step=2, samples_per_ticket=1, max_staleness=0)
    for ticket in admitted(ledger):
        ledger.deliver(ticket, "actor", 0)
    taken = ledger.take(0)
    assert taken == [0, 1]
    assert admitted(ledger) == []
    ledger.learn(taken)
    assert (ledger.num_learned, admitted(ledger)) == (2, [])
    ledger.release()
    assert admitted(ledger) == [2, 3]


def test_a_revoked_ticket_goes_to_the_next_actor_before_new_ones() -> None:
    ledger = Ledger(num_steps=4, tickets_per_step=2, samples_per_ticket=1, max_staleness=1)
    for actor in ("red", "blue", "red"):
        ledger.admit(actor)
    assert ledger.revoke("red") == [0, 2]
    assert admitted(ledger) == [0, 2, 3]


def test_a_result_of_a_revoked_actor_is_refused_even_if_the_ticket_is_out_again() -> None:
    ledger = Ledger(num_steps=1, tickets_per_step=1, samples_per_ticket=1, max_staleness=0)
    ledger.admit("red")
    ledger.revoke("red")
    assert not ledger.deliver(0, "red", 0)
    ledger.admit("blue")
    assert not ledger.deliver(0, "red", 0)
    assert ledger.deliver(0, "blue", 0)
    assert not ledger.deliver(0, "blue", 0), "the same result came twice"


def test_groups_that_a_straggler_delivers_too_late_are_stale_and_rolled_again() -> None:
    ledger = Ledger(num_steps=5, tickets_per_step=1, samples_per_ticket=1, max_staleness=1)
    ledger.admit("slow")
    for version in (0, 1):  # two tickets overtake the first
        ticket = ledger.admit("quick")
        assert ticket is not None
        ledger.deliver(ticket.ticket_id, "quick", version)
        ledger.learn(ledger.take(version) or [])
        ledger.release()
    ledger.deliver(0, "slow", 0)
    assert ledger.stale(1) == []
    assert ledger.stale(2) == [0]
    ledger.discard([0])
    ticket = ledger.admit("quick")
    assert ticket is not None
    assert ticket.ticket_id == 0


def test_taking_a_stale_ticket_is_an_error_of_ours() -> None:
    ledger = Ledger(num_steps=2, tickets_per_step=1, samples_per_ticket=1, max_staleness=0)
    ledger.admit("red")
    ledger.deliver(0, "red", 0)
    with pytest.raises(AssertionError):
        ledger.take(1)


def test_a_resume_rolls_out_again_what_was_not_learned() -> None:
    ledger = Ledger(num_steps=4, tickets_per_step=1, samples_per_ticket=1, max_staleness=2)
    for actor in ("red", "blue", "blue"):
        ledger.admit(actor)
    ledger.deliver(1, "blue", 0)
    ledger.learn(ledger.take(0) or [])  # ticket 1, before ticket 0
    ledger.deliver(2, "blue", 0)
    assert ledger.state() == {"learned_below": 0, "learned_beyond": [1]}

    resumed = Ledger(num_steps=4, tickets_per_step=1, samples_per_ticket=1, max_staleness=2)
    resumed.restore(ledger.state())
    assert resumed.num_learned == 1
    assert admitted(resumed) == [0, 2, 3]
