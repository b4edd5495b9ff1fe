"""Counted work with round numbers, for the arithmetic that follows from it."""

import pytest

from deploy.planning.actor_counting import ActorWork
from deploy.planning.counting import Work
from deploy.planning.learner_counting import LearnerWork, MicroBatchBytes

GB = 10**9
TERA = 10**12


@pytest.fixture
def work() -> Work:
    """A policy of 1 GB; an image takes the actor 1 + 1 + 3 + 1 TFLOP and the learner 3."""
    peaks = {"encode": 1 * GB, "policy": 2 * GB, "sample": GB // 2, "decode": 6 * GB, "perceptual": 3 * GB}
    return Work(
        actor=ActorWork(
            encode=TERA, policy=9 * TERA // 10, head=TERA // 10, decode=3 * TERA, perceptual=TERA, peak_bytes=peaks
        ),
        learner=LearnerWork(
            forward=TERA,
            backward=2 * TERA,
            recomputed=0,
            plain_bytes=MicroBatchBytes(kept=8 * GB, on_top=GB // 2),
            checkpointed_bytes=MicroBatchBytes(kept=GB, on_top=2 * GB),
        ),
        num_parameters=GB // 4,
        policy_bytes=1 * GB,
        frozen_bytes=GB // 2,
        drawn_bytes=GB // 10,
        drawing=TERA,
        num_trained=GB // 4,
        trained_bytes=1 * GB,
    )
