"""Groups that can be learned from, and those that cannot. Letters: B groups, G samples a group, T image tokens."""

import numpy as np

from common.finite import non_finite_groups, take_rows
from common.schema import GroupBatch

B, G, T = 4, 2, 3


def groups() -> GroupBatch:
    return GroupBatch(
        sample_index_B=np.arange(B) + 10,
        image_id_B=tuple("abcd"),
        policy_version=5,
        codebook_size=7,
        context_tokens_BT=np.arange(B * (T - 1), dtype=np.int32).reshape(B, T - 1),
        target_tokens_BT=np.zeros((B, T), dtype=np.int32),
        sampled_tokens_BGT=np.zeros((B, G, T), dtype=np.int32),
        behaviour_logprobs_BGT=np.full((B, G, T), -1.0, dtype=np.float32),
        reward_mse_BG=np.ones((B, G), dtype=np.float32),
        reward_lpips_BG=np.ones((B, G), dtype=np.float32),
        condition={"label": np.arange(B) + 20},
    )


def test_one_number_that_is_not_finite_makes_its_group_unsound_and_the_reason_names_it() -> None:
    batch = groups()
    assert non_finite_groups(batch) == {}
    batch.reward_lpips_BG[3, 1] = np.inf
    batch.behaviour_logprobs_BGT[0, 1, 2] = -np.inf
    batch.reward_mse_BG[1, 0] = np.nan
    assert non_finite_groups(batch) == {
        0: "non-finite log-probability",
        1: "non-finite reward",
        3: "non-finite reward",
    }


def test_a_group_without_a_single_number_is_unsound_for_its_reward() -> None:
    batch = groups()
    batch.behaviour_logprobs_BGT[2] = np.nan
    batch.reward_mse_BG[2] = np.nan
    assert non_finite_groups(batch) == {2: "non-finite reward"}


def test_rows_are_taken_from_every_column() -> None:
    some = take_rows(groups(), [3, 1])
    assert some.image_id_B == ("d", "b")
    assert some.sample_index_B.tolist() == [13, 11]
    assert some.context_tokens_BT.tolist() == [[6, 7], [2, 3]]
    assert some.condition["label"].tolist() == [23, 21]
    assert (some.policy_version, some.codebook_size) == (5, 7)
