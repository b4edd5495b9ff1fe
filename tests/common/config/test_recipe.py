"""What a recipe derives from its keys, and that every key is documented."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import BaseModel

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.schema import GroupBatch, to_table


def sections(kind: Any) -> Iterator[type[BaseModel]]:
    """A section and all those within it."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for field in kind.model_fields.values():
            yield from sections(field.annotation)
    for member in get_args(kind):
        yield from sections(member)


SECTIONS = sorted(set(sections(Recipe)), key=lambda section: section.__name__)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_key_has_its_line_of_prose(section: type[BaseModel]) -> None:
    for name, field in section.model_fields.items():
        assert field.description, f"{section.__name__}.{name}"
        assert field.description.endswith("."), f"{section.__name__}.{name}"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_section_is_frozen_and_refuses_unknown_keys(section: type[BaseModel]) -> None:
    assert section.model_config.get("frozen")
    assert section.model_config.get("extra") == "forbid"


def test_the_derived_sizes_follow_from_the_keys(tiny_recipe: Recipe) -> None:
    assert (tiny_recipe.grid_size, tiny_recipe.num_tokens) == (8, 64)  # 32 px, halved twice
    assert tiny_recipe.tickets_per_step == 2
    assert tiny_recipe.buffer_capacity == 4
    assert with_changes(tiny_recipe, {"buffer.max_staleness": 3}).buffer_capacity == 16


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, 12),  # a ticket's 4 images with 3 samples each
        ({"reward.decode_batch_size": 8}, 6),  # no more than two whole groups
        ({"reward.decode_batch_size": 2}, 3),  # a group is never split
        ({"advantage.credit": "gradient", "reward.gradient_batch_size": 7}, 6),
        ({"advantage.credit": "gradient", "reward.gradient_batch_size": 2}, 2),  # there it may be
        ({"advantage.credit": "gradient", "reward.gradient_batch_size": 64}, 12),
    ],
)
def test_the_decoder_is_compiled_for_what_it_takes_at_once(
    changes: dict[str, Any], size: int, tiny_recipe: Recipe
) -> None:
    common = {"compute.compile": True, "actors.images_per_ticket": 4, "group.size": 3}
    recipe = with_changes(tiny_recipe, {"learner.images_per_step": 4} | common | changes)
    assert recipe.compiled_decode_size == size
    assert with_changes(recipe, {"compute.compile": False}).compiled_decode_size is None


TEXT = {
    "source": {"kind": "parquet", "path": "shards"},
    "policy.conditioning": "text",
    "policy.caption_dim": 24,
    "policy.caption_length": 12,
}


BOTH = ("mse", "lpips")
OWN = ({"reward.python": "own:sharpness", "reward.lpips": 0, "advantage.credit": "token"}, ("mse", "sharpness"))


@pytest.mark.parametrize(
    ("changes", "terms"),
    [({}, BOTH), (TEXT, BOTH), ({"reward.l1": 1}, (*BOTH, "l1")), ({"advantage.credit": "token"}, BOTH), OWN],
    ids=["class", "text", "absolute error", "token credit", "a term of one's own"],
)
@pytest.mark.parametrize("num_rows", [1, 8])
def test_a_group_takes_no_more_bytes_than_the_check_of_the_buffer_counts(
    num_rows: int, changes: dict[str, Any], terms: tuple[str, ...], tiny_recipe: Recipe
) -> None:
    recipe = with_changes(tiny_recipe, changes)
    B, G, T, policy = num_rows, recipe.group.size, recipe.num_tokens, recipe.policy
    label: dict[str, np.ndarray] = {"label": np.zeros(B, np.int64)}
    caption: dict[str, np.ndarray] = {
        "caption_features": np.zeros((B, policy.caption_length, policy.caption_dim), np.float16),
        "caption_mask": np.zeros((B, policy.caption_length), np.uint8),
    }
    groups = GroupBatch(
        sample_index_B=np.arange(B),
        image_id_B=tuple("n01440764/" + "x" * 240 for _ in range(B)),  # a long path in a folder of pictures
        policy_version=0,
        codebook_size=20,
        context_tokens_BT=np.zeros((B, T - 1), np.int32),
        target_tokens_BT=np.zeros((B, T), np.int32),
        sampled_tokens_BGT=np.zeros((B, G, T), np.int32),
        behaviour_logprobs_BGT=np.zeros((B, G, T), np.float32),
        condition=caption if policy.conditioning == "text" else label,
        reward_terms={name: np.zeros((B, G), np.float32) for name in terms},
    )
    if recipe.advantage.credit == "token":
        groups = replace(groups, reward_maps={name: np.zeros((B, G, T), np.float32) for name in terms})
    assert 0.85 * B * recipe.group_bytes < to_table(groups).nbytes <= B * recipe.group_bytes


def test_the_noise_is_constant_or_goes_step_by_step_from_one_end_to_the_other(tiny_recipe: Recipe) -> None:
    assert tiny_recipe.context_noise(0) == tiny_recipe.context_noise(99) == 0.5
    changes = {"context.noise_schedule": "linear", "context.noise_end": 0.1, "learner.num_steps": 3}
    recipe = with_changes(tiny_recipe, changes)
    noises = [recipe.context_noise(index) for index in (0, 3, 4, 7, 8, 11, 12)]  # 4 images a step
    assert noises == pytest.approx([0.5, 0.5, 0.3, 0.3, 0.1, 0.1, 0.1])
    assert with_changes(recipe, {"learner.num_steps": 1}).context_noise(0) == 0.5


def test_rear_s_noise_falls_to_none_at_three_quarters_of_the_run(tiny_recipe: Recipe) -> None:
    changes = {"context.noise": 0.6, "context.noise_schedule": "rear", "learner.num_steps": 5}
    recipe = with_changes(tiny_recipe, changes)
    noises = [recipe.context_noise(step * 4) for step in range(5)]  # 4 images a step
    assert noises == pytest.approx([0.6, 0.4, 0.2, 0.0, 0.0])
