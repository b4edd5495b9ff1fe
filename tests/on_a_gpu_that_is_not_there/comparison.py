"""Whether two outcomes are alike."""

from collections.abc import Mapping

import numpy as np
import pytest

from learner.step_sums import StepSums
from tests.on_a_gpu_that_is_not_there.runs import Outcome

WEIGHT_TOLERANCE = 5e-5  # a twentieth of what AdamW moves a weight by in a step, at lr 1e-3
PIXEL_TOLERANCE = 1  # of 255


def assert_equal(here: Outcome, there: Outcome) -> None:
    assert_same_draws(here, there, share=1.0)
    np.testing.assert_array_equal(here.groups.context_tokens_BT, there.groups.context_tokens_BT)
    for name in ("condition", "reward_terms", "reward_maps", "credit"):
        assert_close(getattr(here.groups, name), getattr(there.groups, name), rtol=1e-4, atol=1e-5)
    logprobs_BGT = here.groups.behaviour_logprobs_BGT, there.groups.behaviour_logprobs_BGT
    np.testing.assert_allclose(*logprobs_BGT, rtol=0, atol=1e-5)
    for one, other in zip(here.steps, there.steps, strict=True):
        assert_same_sums(one, other)
    assert_close(here.weights, there.weights, rtol=0, atol=WEIGHT_TOLERANCE)
    assert_close(here.moments, there.moments, rtol=1e-2, atol=1e-5)
    assert_close(here.scores, there.scores, rtol=0, atol=1e-5)
    levels_NHWC = np.abs(here.pictures_NHWC.astype(int) - there.pictures_NHWC)
    assert levels_NHWC.max() <= PIXEL_TOLERANCE


def assert_same_sums(one: StepSums, other: StepSums) -> None:
    """A policy's loss is a sum of advantages that cancel, each of about 1: its rounding is not relative to it."""
    for name, value in one.sums.items():
        absolute = 1e-4 if name == "policy_loss" else 1e-5
        assert value == pytest.approx(other.sums[name], rel=1e-4, abs=absolute), name
    assert one.sums.keys() == other.sums.keys()


def assert_same_draws(here: Outcome, there: Outcome, share: float) -> None:
    for column in ("target_tokens_BT", "sampled_tokens_BGT"):
        is_equal = getattr(here.groups, column) == getattr(there.groups, column)
        assert np.count_nonzero(is_equal) >= share * is_equal.size, column  # of none, where no samples are drawn


def assert_close(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], rtol: float, atol: float) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.dtype == other[name].dtype, name
        np.testing.assert_allclose(array, other[name], rtol=rtol, atol=atol, err_msg=name)


def cosine(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    """Of the first moments: two steps' gradients."""
    names = [name for name in one if name.endswith(".exp_avg")]
    a, b = (np.concatenate([arrays[name].ravel() for name in names]) for arrays in (one, other))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
