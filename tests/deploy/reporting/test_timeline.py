"""The events of a run as the page tells them."""

from pathlib import Path

import pytest

from common.facts import Fact, TicketDropped
from deploy.reporting.timeline import timeline
from deploy.runs.run_folder import RunFolder
from deploy.runs.wording import WORDINGS
from tests.deploy.reporting.conftest import event
from tests.example_facts import EXAMPLES, as_event
from tests.service.reading import lines


@pytest.mark.parametrize("fact", EXAMPLES, ids=lambda fact: fact.event)
def test_every_event_of_a_run_folder_has_its_sentence_and_its_tone(fact: Fact, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.record(fact)
    (row,) = timeline(lines(folder.path / "events.jsonl"), folder.path).first
    wording = WORDINGS[fact.event]
    assert (row.text, row.tone) == (wording.of(as_event(fact)), wording.tone)
    assert (row.since_start, row.details, row.num_left_out) == ("+0:00", [], 0)
    assert len(row.clock) == 8


@pytest.mark.parametrize("name", [name for name, wording in WORDINGS.items() if wording.together])
def test_what_is_frequent_is_told_together(name: str, tmp_path: Path) -> None:
    (fact,) = [fact for fact in EXAMPLES if fact.event == name][:1]
    (row,) = timeline([as_event(fact)] * 1200, tmp_path).first
    assert row.text.startswith(WORDINGS[name].together.format(count="1,200"))
    assert row.details == ([] if WORDINGS[name].is_routine else [WORDINGS[name].of(fact.told())] * 20)


def test_tickets_lost_with_a_node_are_told_as_that_and_stale_ones_as_too_old(tmp_path: Path) -> None:
    reasons = ("stale", "groups lost with a node", "weights lost with a node")
    facts = [TicketDropped(number, reason, 0, 2) for number, reason in enumerate(reasons, start=3)]
    (row,) = timeline([as_event(fact) for fact in facts], tmp_path).first
    assert row.text == "3 tickets dropped, to be rolled out again"
    assert row.details == [
        "ticket 3 dropped: too old",
        "ticket 4 dropped: groups lost with a node",
        "ticket 5 dropped: weights lost with a node",
    ]
    singles = [timeline([as_event(fact)], tmp_path).first[0].text for fact in facts]
    assert singles == row.details


def test_many_steps_name_the_first_and_the_last(tmp_path: Path) -> None:
    events = [event(number, "step_skipped", step=number, grad_norm="nan") for number in (3, 4, 7)]
    (row,) = timeline(events, tmp_path).first
    assert row.text == "3 updates skipped, whose gradient was not finite: steps (3 to 7)"
    assert row.tone == "warn"


def test_a_path_in_the_run_folder_is_told_without_it(tmp_path: Path) -> None:
    events = [event(0, "learner_lost", reason="gone", resumed_from=f"{tmp_path}/checkpoints/step-000005")]
    assert timeline(events, tmp_path).first[0].text == (
        "learner lost: gone; going on from checkpoints/step-000005"
    )


@pytest.mark.parametrize(
    ("old", "text"),
    [
        (event(0, "moon_landed", crew=3), "moon landed: crew 3"),
        (event(0, "ticket_dropped", ticket=3), "ticket dropped: ticket 3"),
        (event(0, "ticket_dropped", ticket=3, reason="stale"), "ticket 3 dropped: too old"),
        (event(0, "started"), "started"),
        ({"event": "stop_asked_for"}, "asked to stop"),
    ],
)
def test_events_of_other_versions_are_told_as_far_as_they_go(old, text: str, tmp_path: Path) -> None:
    assert timeline([old], tmp_path).first[0].text == text
