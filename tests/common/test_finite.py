"""Groups that can be learned from, and those that cannot. Letters: B groups, G samples a group, T image tokens."""

from dataclasses import replace

import numpy as np

from common.finite import non_finite_groups, quarantine, take_rows
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
        condition={"label": np.arange(B) + 20},
        reward_terms={name: np.ones((B, G), dtype=np.float32) for name in ("mse", "lpips")},
        reward_maps={"mse": np.arange(B, dtype=np.float32)[:, None, None] + np.zeros((B, G, T), np.float32)},
        higher_is_better=frozenset({"lpips"}),
    )


def test_one_number_that_is_not_finite_makes_its_group_unsound_and_the_reason_names_it() -> None:
    batch = groups()
    assert non_finite_groups(batch) == {}
    batch.reward_terms["lpips"][3, 1] = np.inf
    batch.behaviour_logprobs_BGT[0, 1, 2] = -np.inf
    batch.reward_terms["mse"][1, 0] = np.nan
    batch.reward_maps["mse"][2, 1, 2] = np.nan
    assert non_finite_groups(batch) == {
        0: "non-finite log-probability",
        1: "non-finite reward.mse",
        2: "non-finite reward.mse",
        3: "non-finite reward.lpips",
    }


def test_a_group_without_a_single_number_is_unsound_for_its_reward() -> None:
    batch = groups()
    batch.behaviour_logprobs_BGT[2] = np.nan
    batch.reward_terms["mse"][2] = np.nan
    assert non_finite_groups(batch) == {2: "non-finite reward.mse"}


def test_rows_are_taken_from_every_column() -> None:
    some = take_rows(groups(), [3, 1])
    assert some.image_id_B == ("d", "b")
    assert some.sample_index_B.tolist() == [13, 11]
    assert some.context_tokens_BT.tolist() == [[6, 7], [2, 3]]
    assert some.condition["label"].tolist() == [23, 21]
    assert list(some.reward_terms) == ["mse", "lpips"]
    assert some.reward_maps["mse"][:, 0, 0].tolist() == [3.0, 1.0]
    assert some.higher_is_better == {"lpips"}
    assert (some.policy_version, some.codebook_size) == (5, 7)


def test_a_quarantined_group_keeps_its_place_with_weight_0_and_zeros_in_every_named_column() -> None:
    batch = groups()
    batch.reward_terms["lpips"][2, 1] = np.nan
    harmless, weights_B = quarantine(batch)
    assert weights_B.tolist() == [1, 1, 0, 1]
    for columns in (harmless.reward_terms, harmless.reward_maps):
        assert all(not column[2].any() for column in columns.values())
    assert harmless.reward_terms["mse"][[0, 1, 3]].min() == 1
    assert harmless.reward_maps["mse"][3].min() == 3
    assert not harmless.behaviour_logprobs_BGT[2].any()
    assert harmless.condition["label"].tolist() == [20, 21, 22, 23]
    assert (len(harmless), harmless.higher_is_better) == (4, {"lpips"})
    assert np.isnan(batch.reward_terms["lpips"][2, 1]), "what was handed in is another's"


def test_a_gradient_that_is_not_finite_makes_its_group_unsound_and_is_emptied() -> None:
    credit = {"gradient": np.ones((B, T, 2), np.float32), "spread": np.ones((B, T), np.float32)}
    credit["gradient"][2, 1, 0] = np.nan
    batch = replace(groups(), credit=credit)
    assert non_finite_groups(batch) == {2: "non-finite gradient"}
    emptied, weights_B = quarantine(batch)
    assert weights_B.tolist() == [1, 1, 0, 1]
    assert (emptied.credit["gradient"][2] == 0).all()
    assert (emptied.credit["gradient"][1] == 1).all()
