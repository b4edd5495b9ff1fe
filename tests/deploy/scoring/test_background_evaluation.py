"""Scores during training: a thread scores, the loop's actors do the chunks, and nobody waits for anybody."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.pool_events import PublishedPolicy
from common.facts import PictureSaved, Scored, ScoringStarted
from deploy.scoring.background_evaluation import BackgroundEvaluation
from deploy.scoring.scorer import Evaluation
from tests.fakes import Told

PATIENCE_SECONDS = 10.0


class Scorer:
    """Has three chunks done, and scores by what they gave; waits for the gate before."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None

    def evaluate(self, run_chunks: Callable[[Any], list[float]], *, temperature: float, num_seeds: int) -> Any:
        assert (temperature, num_seeds) == (0.9, 1)
        self.gate.wait(PATIENCE_SECONDS)
        results = run_chunks(["a", "b", "c"])
        if self.error is not None:
            raise self.error
        return [Evaluation({"first": results[0], "last": results[2]}, np.zeros((2, 8, 8, 3), np.uint8))]


@pytest.fixture
def scorer() -> Scorer:
    return Scorer()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def evaluation(scorer: Scorer, told: Told, tmp_path: Path) -> Iterator[BackgroundEvaluation]:
    evaluation = BackgroundEvaluation(scorer, 0.9, told, tmp_path)  # type: ignore[arg-type]
    yield evaluation
    scorer.gate.set()
    evaluation.close()


def until(condition: Callable[[], Any]) -> Any:
    """What the condition gives once it is true: the thread takes a moment."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return found


def do_chunks(evaluation: BackgroundEvaluation, result: float) -> None:
    """As an actor does, and what comes of it is recorded."""
    assert evaluation.is_running
    for number in range(3):
        index, _, _ = until(lambda: evaluation.take("actor-0"))
        evaluation.deliver(index, result + number)
    evaluation.wait(PATIENCE_SECONDS)
    evaluation.record()


def test_actors_get_a_chunk_each_and_the_scores_are_told_once_all_are_done(
    evaluation: BackgroundEvaluation, told: Told, tmp_path: Path
) -> None:
    published = PublishedPolicy(4, "weights of 4")
    assert evaluation.take("actor-0") is None
    evaluation.start(published)
    assert until(lambda: evaluation.take("actor-0")) == (0, "a", published)
    assert evaluation.take("actor-0") is None
    assert evaluation.take("actor-1") == (1, "b", published)
    assert evaluation.take("actor-2") == (2, "c", published)
    for index, result in ((2, 0.3), (0, 0.1)):
        evaluation.deliver(index, result)
        evaluation.record()
        assert told.of(Scored) == []
    evaluation.deliver(1, 0.2)
    assert evaluation.take("actor-0") is None
    evaluation.wait(PATIENCE_SECONDS)
    assert evaluation.is_running
    evaluation.record()
    assert not evaluation.is_running
    picture = tmp_path / "step-000004.png"
    assert told.facts == [
        ScoringStarted(4, "the policy"),
        Scored(4, {"first": 0.1, "last": 0.3}),
        PictureSaved(4, picture),
    ]
    assert picture.is_file()


def test_what_a_lost_actor_had_is_for_another(evaluation: BackgroundEvaluation) -> None:
    evaluation.start(PublishedPolicy(4, None))
    assert until(lambda: evaluation.take("actor-0"))[1] == "a"
    evaluation.give_back("actor-0")
    evaluation.give_back("actor-9")  # which had none
    assert [evaluation.take(f"actor-{number}")[:2] for number in (1, 2, 3)] == [(0, "a"), (1, "b"), (2, "c")]
    assert evaluation.take("actor-4") is None


def test_one_evaluation_can_wait_and_a_third_is_not_done(
    evaluation: BackgroundEvaluation, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    for version in (2, 4, 6):
        evaluation.start(PublishedPolicy(version, None))
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "step 6 is not scored: two evaluations are still to be done")
    ]
    do_chunks(evaluation, 0.0)
    assert evaluation.is_running
    do_chunks(evaluation, 1.0)
    assert not evaluation.is_running
    assert told.of(Scored) == [Scored(2, {"first": 0.0, "last": 2.0}), Scored(4, {"first": 1.0, "last": 3.0})]


def test_an_error_of_the_scoring_is_raised_where_the_scores_would_be_told(
    evaluation: BackgroundEvaluation, scorer: Scorer
) -> None:
    scorer.error = ZeroDivisionError("no pictures")
    evaluation.start(PublishedPolicy(2, None))
    with pytest.raises(ZeroDivisionError, match="no pictures"):
        do_chunks(evaluation, 0.0)


@pytest.mark.parametrize("has_begun", [True, False])
def test_closing_gives_up_what_is_at_work_or_about_to_begin(
    evaluation: BackgroundEvaluation, scorer: Scorer, told: Told, has_begun: bool
) -> None:
    scorer.gate.clear()
    evaluation.start(PublishedPolicy(2, None))
    if has_begun:
        scorer.gate.set()
        until(lambda: evaluation.take("actor-0"))
    closing = threading.Thread(target=evaluation.close)
    closing.start()
    time.sleep(0.02)
    scorer.gate.set()
    closing.join(1.0)
    assert not closing.is_alive()
    assert told.of(Scored) == []
