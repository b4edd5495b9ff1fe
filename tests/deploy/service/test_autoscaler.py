"""The autoscaler: it follows what lasts, within its bounds, and waits for what it asked for."""

import pytest

from common.config.service import AutoscaleSection
from deploy.service.autoscaler import Autoscaler


@pytest.fixture
def autoscaler() -> Autoscaler:
    return Autoscaler(AutoscaleSection(min=1, max=3, patience=3))


def decisions(autoscaler: Autoscaler, steps: list[tuple[float, float]], wanted: int = 2) -> list[int]:
    """The number of actors after each step (wait share, fill); actors are there at once."""
    counts = []
    for wait_share, fill in steps:
        decision = autoscaler.after_step(wait_share, fill, ready=wanted, wanted=wanted)
        wanted = decision[0] if decision else wanted
        counts.append(wanted)
    return counts


def test_a_starving_learner_gets_an_actor_after_some_steps_up_to_the_maximum(autoscaler: Autoscaler) -> None:
    assert decisions(autoscaler, [(0.5, 0.0)] * 9) == [2, 2, 3, 3, 3, 3, 3, 3, 3]


def test_a_full_buffer_costs_an_actor_down_to_the_minimum(autoscaler: Autoscaler) -> None:
    assert decisions(autoscaler, [(0.0, 1.0)] * 9) == [2, 2, 1, 1, 1, 1, 1, 1, 1]


def test_steps_that_disagree_change_nothing(autoscaler: Autoscaler) -> None:
    assert decisions(autoscaler, [(0.5, 0.0), (0.5, 0.0), (0.1, 0.5)] * 4) == [2] * 12


def test_between_the_two_bounds_nothing_changes(autoscaler: Autoscaler) -> None:
    assert decisions(autoscaler, [(0.1, 1.0), (0.0, 0.5)] * 6) == [2] * 12


def test_no_decision_before_the_actors_asked_for_are_there(autoscaler: Autoscaler) -> None:
    for _ in range(5):
        assert autoscaler.after_step(0.5, 0.0, ready=1, wanted=2) is None
    count, reason = autoscaler.after_step(0.5, 0.0, ready=2, wanted=2)
    assert count == 3
    assert reason == "the learner waited 50% of each of 3 steps"
