"""An evaluation during training whose policy goes down with a node: scored with its weights again, or given up."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.pool_events import PublishedPolicy
from common.facts import Scored
from deploy.scoring.background_evaluation import BackgroundEvaluation
from deploy.scoring.scorer import Evaluation
from tests.fakes import Told

PATIENCE_SECONDS = 10.0


class ThreeChunks:
    """A scorer; a score is what the first chunk gave."""

    def evaluate(self, run_chunks: Callable[[Any], list[float]], **_: Any) -> list[Evaluation]:
        return [Evaluation({"first": run_chunks(["a", "b", "c"])[0]}, np.zeros((2, 8, 8, 3), np.uint8))]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def evaluation(told: Told, tmp_path: Path) -> Iterator[BackgroundEvaluation]:
    evaluation = BackgroundEvaluation(ThreeChunks(), 1.0, told, tmp_path)  # type: ignore[arg-type]
    yield evaluation
    evaluation.close()


def first_taken(evaluation: BackgroundEvaluation, actor: str) -> Any:
    """What `actor` takes once something is there: the thread that offers it takes a moment."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (taken := evaluation.take(actor)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return taken


def ended(evaluation: BackgroundEvaluation) -> None:
    evaluation.wait(PATIENCE_SECONDS)
    evaluation.record()


def score(evaluation: BackgroundEvaluation, result: float) -> None:
    """One actor does every chunk."""
    for index in range(3):
        assert first_taken(evaluation, "actor-0")[0] == index
        evaluation.deliver(index, result)
    ended(evaluation)


def test_what_is_published_again_is_what_chunks_are_done_with(evaluation: BackgroundEvaluation) -> None:
    evaluation.start(PublishedPolicy(4, "lost"))
    assert first_taken(evaluation, "actor-0") == (0, "a", PublishedPolicy(4, "lost"))
    evaluation.give_back("actor-0")
    evaluation.renew(PublishedPolicy(4, "again"))
    assert evaluation.take("actor-0") == (0, "a", PublishedPolicy(4, "again"))


def test_a_newer_version_is_not_what_is_scored(evaluation: BackgroundEvaluation) -> None:
    evaluation.start(PublishedPolicy(4, "weights of 4"))
    evaluation.renew(PublishedPolicy(5, "weights of 5"))
    assert first_taken(evaluation, "actor-0")[2] == PublishedPolicy(4, "weights of 4")


def test_an_evaluation_that_waits_gets_the_weights_that_are_published_again(
    evaluation: BackgroundEvaluation, told: Told
) -> None:
    for version in (4, 6):
        evaluation.start(PublishedPolicy(version, "lost"))
    evaluation.renew(PublishedPolicy(6, "again"))
    score(evaluation, 0.5)
    assert first_taken(evaluation, "actor-0")[2] == PublishedPolicy(6, "again")


def test_one_that_is_given_up_ends_when_no_actor_is_at_it_and_the_next_begins(
    evaluation: BackgroundEvaluation, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    for version in (4, 6):
        evaluation.start(PublishedPolicy(version, None))
    for actor in ("actor-0", "actor-1", "actor-2"):
        first_taken(evaluation, actor)
    evaluation.give_back("actor-0")
    evaluation.give_up()
    assert evaluation.take("actor-0") is None
    evaluation.deliver(1, 0.1)
    evaluation.record()
    assert evaluation.take("actor-1") is None  # actor-2 is at it still
    evaluation.give_back("actor-2")
    evaluation.give_up()
    ended(evaluation)
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "step 4 is not scored: its weights were lost with a node")
    ]
    assert evaluation.is_running
    score(evaluation, 0.6)
    assert told.of(Scored) == [Scored(6, {"first": 0.6})]
    assert not evaluation.is_running


def test_one_that_is_given_up_while_nobody_is_at_it_ends_at_once(
    evaluation: BackgroundEvaluation, told: Told
) -> None:
    evaluation.start(PublishedPolicy(4, None))
    first_taken(evaluation, "actor-0")
    evaluation.give_back("actor-0")
    evaluation.give_up()
    ended(evaluation)
    assert not evaluation.is_running
    assert told.of(Scored) == []
    evaluation.give_up()  # of what has ended
    evaluation.start(PublishedPolicy(6, None))
    score(evaluation, 0.6)
    assert told.of(Scored) == [Scored(6, {"first": 0.6})]
