"""What groups must hold for the recipe's method."""

import numpy as np
import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import RecipeError
from common.schema import GroupBatch, from_table, to_table
from learner.recorded_credit import require_credit


def groups(num_samples: int, **more: dict) -> GroupBatch:
    return GroupBatch(
        sample_index_B=np.array([3]),
        image_id_B=("three",),
        policy_version=0,
        codebook_size=20,
        context_tokens_BT=np.zeros((1, 63), np.int32),
        target_tokens_BT=np.zeros((1, 64), np.int32),
        sampled_tokens_BGT=np.zeros((1, num_samples, 64), np.int32),
        behaviour_logprobs_BGT=np.zeros((1, num_samples, 64), np.float32),
        condition={"label": np.zeros(1, np.int64)},
        reward_terms={},
        **more,
    )


def test_a_method_that_compares_pictures_needs_the_images_and_grpo_is_not_given_them(tiny_recipe: Recipe) -> None:
    ste = with_changes(tiny_recipe, {"learner.method": "ste"})
    pixels = {"pixels": np.zeros((1, 32, 32, 3), np.uint8)}
    require_credit(groups(0, source=pixels), ste)
    with pytest.raises(RecipeError, match="hold no images to compare with"):
        require_credit(groups(0), ste)
    with pytest.raises(RecipeError, match="hold images, which grpo does without"):
        require_credit(groups(4, source=pixels), tiny_recipe)


def test_groups_without_samples_and_with_images_come_through_a_table_as_they_were(tiny_recipe: Recipe) -> None:
    pixels = np.arange(32 * 32 * 3).astype(np.uint8).reshape(1, 32, 32, 3)
    sent = groups(0, source={"pixels": pixels})
    table = to_table(sent)
    came = from_table(table)
    assert came.sampled_tokens_BGT.shape == came.behaviour_logprobs_BGT.shape == (1, 0, 64)
    assert (came.group_size, came.num_tokens_sampled) == (0, 0)
    assert (came.source["pixels"] == pixels).all()
    recipe = with_changes(tiny_recipe, {"learner.method": "ste"})
    assert 0.85 * recipe.group_bytes < table.nbytes <= recipe.group_bytes
