"""Every fact has words, and every wording a fact."""

import logging
import string
from dataclasses import fields

import pytest

from common import facts, judge_facts, request_facts, yardstick_facts
from common.facts import Ended, Fact, TicketDropped
from deploy.runs.wording import WORDINGS, Wording, wording_of
from tests.example_facts import EXAMPLES, as_event

TOLD = {**vars(facts), **vars(request_facts), **vars(judge_facts), **vars(yardstick_facts)}
KINDS = [kind for kind in TOLD.values() if isinstance(kind, type) and issubclass(kind, Fact)]
FREQUENT = {
    "ticket_delivered", "ticket_dropped", "image_skipped", "step_learned", "step_skipped", "groups_quarantined",
    "published", "checkpoint", "picture_saved", "rewards_flat", "chunk_lost",
}  # fmt: skip


def test_there_is_an_example_of_every_fact() -> None:
    assert {type(fact) for fact in EXAMPLES} == set(KINDS) - {Fact}


def test_every_fact_has_a_wording_and_every_wording_a_fact() -> None:
    assert {fact.event for fact in EXAMPLES} == set(WORDINGS)
    names = [kind.__new__(kind).event for kind in KINDS if kind not in (Fact, Ended)]
    assert len(set(names)) == len(names), "two facts of one name"


@pytest.mark.parametrize("fact", EXAMPLES, ids=lambda fact: fact.event)
def test_a_sentence_says_what_happened(fact: Fact) -> None:
    sentence = WORDINGS[fact.event].of(fact.told())
    assert sentence
    assert "{" not in sentence
    assert "\n" not in sentence
    assert WORDINGS[fact.event].of(as_event(fact)) == sentence  # as the report reads it


@pytest.mark.parametrize("event", WORDINGS)
def test_a_wording_has_a_tone_a_level_and_words_for_many_where_it_is_frequent(event: str) -> None:
    wording = WORDINGS[event]
    assert wording.tone in ("", "good", "warn", "bad")
    levels = {"": logging.INFO, "good": logging.INFO, "warn": logging.WARNING, "bad": logging.ERROR}
    assert wording.level == (logging.DEBUG if wording.is_routine else levels[wording.tone])
    assert bool(wording.together) == (event in FREQUENT)
    if wording.together:
        assert [name for _, name, _, _ in string.Formatter().parse(wording.together) if name] == ["count"]
    if wording.is_routine:
        assert wording.together
        assert wording.tone == ""


def test_what_is_routine_bad_and_warned_of() -> None:
    def of(tone: str) -> set[str]:
        return {event for event, wording in WORDINGS.items() if wording.tone == tone}

    assert {event for event, wording in WORDINGS.items() if wording.is_routine} == {
        "ticket_delivered", "step_learned", "published", "checkpoint", "picture_saved"
    }  # fmt: skip
    assert of("good") == {"succeeded"}
    assert of("warn") == {
        "stopped", "stop_asked_for", "scale_refused", "actor_pending", "rank_pending", "result_refused",
        "judges_not_scaled", "judge_pending",
        "ticket_dropped",
        "image_skipped", "step_skipped", "groups_quarantined", "rewards_flat", "chunk_lost",
    }  # fmt: skip
    assert of("bad") == {
        "failed", "actor_lost", "judge_lost", "rank_lost", "learner_lost", "checkpoint_not_copied",
        "tracker_failed", "tracking_behind", "sink_failed",
    }  # fmt: skip


SENTENCES = [
    "started",
    "resumed from runs/try/checkpoints/step-000005",
    "going on from step 5",
    "succeeded after 10 steps",
    "stopped after 6 steps",
    "failed: RecipeError: no",
    "asked to stop",
    "reward actors 1 → 2: asked for",
    "reward actors not changed to 99999: 99999 reward actors are far beyond this cluster",
    "actor-1 is not placed: it waits for 1 GPU, of which 0 are free",
    "actor-0 joined on 10.0.0.5 (cuda:0)",
    "actor-0 left",
    "actor-0 lost with 2 tickets: died",
    "judge actors 1 → 2: asked for",
    "judge actors not changed to 99999: 99999 judge actors are far beyond this cluster",
    "judge-1 is not placed: it waits for 1 GPU, of which 0 are free",
    "judge-0 joined on 10.0.0.5 (cuda:0)",
    "judge-0 left",
    "judge-0 lost with 1 tickets and 2 chunks of a scoring, judged again: died",
    "learner rank 1 is not placed: it waits for 1 GPU, of which 0 are free",
    "learner rank 1 joined on 10.0.0.6 at step 5",
    "learner rank 1 lost at step 5: died",
    "a learner rank that was to join lost at step 5: out of memory",
    "learner lost: all 2 learner ranks were lost in step 6; going on from runs/try/checkpoints/step-000005",
    "learner lost: all 2 learner ranks were lost in step 1; beginning again",
    "ticket 3 delivered by actor-0",
    "ticket 3 delivered by actor-0",
    "ticket 3 refused from actor-0, which had lost it",
    "ticket 3 dropped: too old",
    "ticket 4 dropped: groups lost with a node",
    "ticket 5 dropped: weights lost with a node",
    "image a.png skipped: no picture",
    "image b.png quarantined: non-finite reward",
    "step 7 learned",
    "update of step 8 skipped: gradient norm nan",
    "2 groups quarantined in step 8",
    "all samples have the same reward in 2 groups of step 8",
    "step 9 learned nothing from the reward: all samples of each group have the same",
    "policy version 7 published",
    "checkpoint of step 5",
    "checkpoint of step 5 not copied: no network",
    "chunk 3 of the scoring of step 5: weights lost with a node",
    "scoring the policy, of step 5",
    "step 5 scored: held-out reward -0.0500",
    "step 6 scored",
    "training with cross-entropy alone for the same number of steps, as a yardstick",
    "cross-entropy alone scored: held-out reward -0.0500",
    "the base at temperature 0.8 scored",
    "picture runs/try/samples/step-000005.png",
    "wandb failed, and gets nothing more: OSError: no network",
    "trackers are 10000 lines behind: what comes is dropped",
    "Prometheus failed: ValueError: no",
]


def test_the_sentences() -> None:
    assert [WORDINGS[fact.event].of(fact.told()) for fact in EXAMPLES] == SENTENCES


def test_no_number_of_a_dropped_ticket_is_lost_in_its_event() -> None:
    assert {field.name for field in fields(TicketDropped)} == set(TicketDropped(3, "stale", 0, 2).told())


def test_an_event_that_nobody_knows_is_told_by_its_name() -> None:
    assert wording_of("moon_landed") == Wording("moon landed")
