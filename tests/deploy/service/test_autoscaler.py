"""The autoscaler: it follows what lasts, within its bounds, and waits for what it asked for."""

import pytest

from common.config.service import AutoscaleSection
from deploy.service.autoscaler import ActorAutoscaler, JudgeAutoscaler, StepWaits


@pytest.fixture
def autoscaler() -> ActorAutoscaler:
    return ActorAutoscaler(AutoscaleSection(min=1, max=3, patience=3))


def decisions(autoscaler: ActorAutoscaler, steps: list[tuple[float, float]], wanted: int = 2) -> list[int]:
    """The number of actors after each step (wait share, fill); actors are there at once."""
    counts = []
    for wait_share, fill in steps:
        decision = autoscaler.after_step(StepWaits(wait_share), fill, ready=wanted, wanted=wanted)
        wanted = decision[0] if decision else wanted
        counts.append(wanted)
    return counts


def test_a_starving_learner_gets_an_actor_after_some_steps_up_to_the_maximum(autoscaler: ActorAutoscaler) -> None:
    assert decisions(autoscaler, [(0.5, 0.0)] * 9) == [2, 2, 3, 3, 3, 3, 3, 3, 3]


def test_a_full_buffer_costs_an_actor_down_to_the_minimum(autoscaler: ActorAutoscaler) -> None:
    assert decisions(autoscaler, [(0.0, 1.0)] * 9) == [2, 2, 1, 1, 1, 1, 1, 1, 1]


def test_steps_that_disagree_change_nothing(autoscaler: ActorAutoscaler) -> None:
    assert decisions(autoscaler, [(0.5, 0.0), (0.5, 0.0), (0.1, 0.5)] * 4) == [2] * 12


def test_between_the_two_bounds_nothing_changes(autoscaler: ActorAutoscaler) -> None:
    assert decisions(autoscaler, [(0.1, 1.0), (0.0, 0.5)] * 6) == [2] * 12


def test_no_decision_before_the_actors_asked_for_are_there(autoscaler: ActorAutoscaler) -> None:
    for _ in range(5):
        assert autoscaler.after_step(StepWaits(0.5), 0.0, ready=1, wanted=2) is None
    count, reason = autoscaler.after_step(StepWaits(0.5), 0.0, ready=2, wanted=2)
    assert count == 3
    assert reason == "the learner waited 50% of each of 3 steps"


def test_a_learner_that_judges_hold_up_gets_no_reward_actor(autoscaler: ActorAutoscaler) -> None:
    for _ in range(6):
        assert autoscaler.after_step(StepWaits(0.9, judges=0.8), 0.0, ready=2, wanted=2) is None
    waits = StepWaits(0.9, judges=0.5)
    decided = [autoscaler.after_step(waits, 0.0, ready=2, wanted=2) for _ in range(3)]
    assert decided == [None, None, (3, "the learner waited 40% of each of 3 steps")]


@pytest.fixture
def of_judges() -> JudgeAutoscaler:
    return JudgeAutoscaler(AutoscaleSection(min=1, max=3, patience=3))


def judges(autoscaler: JudgeAutoscaler, steps: list[tuple[StepWaits, float]], wanted: int = 2) -> list[int]:
    """The number of judges after each step (waits, busy); they are there at once."""
    counts = []
    for waits, busy in steps:
        decision = autoscaler.after_step(waits, busy, ready=wanted, wanted=wanted)
        wanted = decision[0] if decision else wanted
        counts.append(wanted)
    return counts


QUEUE, TAIL = StepWaits(0.5, judges=0.4, queue=0.3), StepWaits(0.5, judges=0.4, queue=0.1)
SATED = StepWaits(0.01)


def test_tickets_that_wait_for_a_judge_while_the_learner_starves_get_one(of_judges: JudgeAutoscaler) -> None:
    assert judges(of_judges, [(QUEUE, 2.0)] * 9) == [2, 2, 3, 3, 3, 3, 3, 3, 3]
    assert judges(of_judges, [(TAIL, 2.0)] * 9) == [2] * 9  # each ticket has a judge already


def test_judges_that_are_idle_beside_a_busy_learner_go_down_to_the_minimum(of_judges: JudgeAutoscaler) -> None:
    assert judges(of_judges, [(SATED, 0.4)] * 9) == [2, 2, 1, 1, 1, 1, 1, 1, 1]
    assert judges(of_judges, [(SATED, 0.6)] * 9) == [2] * 9  # one alone would be at work for more than half
    assert judges(of_judges, [(SATED, 0.6)] * 9, wanted=3) == [3, 3, 2, 2, 2, 2, 2, 2, 2]


def test_judges_that_are_idle_beside_a_learner_that_waits_for_others_stay(of_judges: JudgeAutoscaler) -> None:
    assert judges(of_judges, [(StepWaits(0.5), 0.1)] * 9) == [2] * 9


def test_a_decision_on_judges_says_why(of_judges: JudgeAutoscaler) -> None:
    assert [of_judges.after_step(QUEUE, 2.0, ready=2, wanted=2) for _ in range(3)][-1] == (
        3,
        "the learner waited 30% of each of 3 steps while tickets waited for a judge",
    )
    assert [of_judges.after_step(SATED, 0.4, ready=2, wanted=2) for _ in range(3)][-1] == (
        1,
        "the learner waited 1% of each of 3 steps, and judges were at work 20% of the time",
    )
