"""What a process holds, and what is said where it does not fit."""

from dataclasses import replace
from typing import Any

import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe
from deploy.planning.counting import Work
from deploy.planning.gpus import GPUS, Gpu
from deploy.planning.learner_counting import MicroBatchBytes
from deploy.planning.memory import (
    actor_memory,
    actor_problem,
    learner_memory,
    learner_problem,
    sampling_memory,
    sampling_problem,
    store_bytes,
)

GB = 10**9


def gpu_of(gigabytes: float) -> Gpu:
    return replace(GPUS["a100"], memory_bytes=int(gigabytes * GB))


def said_of_actor(recipe: Recipe, work: Work, gigabytes: float) -> str | None:
    return actor_problem(recipe, actor_memory(recipe, work, gpu_of(gigabytes)))


def said_of_rank(recipe: Recipe, work: Work, gigabytes: float) -> str | None:
    return learner_problem(recipe, learner_memory(recipe, work, gpu_of(gigabytes)))


def test_an_actor_holds_its_models_and_its_largest_stage(tiny_recipe: Recipe, work: Work) -> None:
    memory = actor_memory(tiny_recipe, work, GPUS["a100"])
    assert memory.working_stage == "decode"
    assert memory.total == 1 * GB + GB // 2 + 6 * GB + 1 * GB
    assert memory.limit == 72 * GB


def test_a_rank_holds_four_numbers_a_parameter_and_a_micro_batch(tiny_recipe: Recipe, work: Work) -> None:
    memory = learner_memory(tiny_recipe, work, GPUS["a100"])
    assert (memory.policy, memory.gradients, memory.adamw) == (GB, GB, 2 * GB)
    assert memory.total == 4 * GB + 8 * GB + GB // 2 + 1 * GB
    assert memory.checkpointed_total == 4 * GB + 1 * GB + 2 * GB + 1 * GB


def test_a_rank_holds_a_second_policy_under_the_kl_prior(tiny_recipe: Recipe, work: Work) -> None:
    ce, kl = (
        learner_memory(with_changes(tiny_recipe, {"learner.prior": prior}), work, GPUS["a100"])
        for prior in ("ce", "kl")
    )
    assert (kl.total - ce.total, kl.checkpointed_total - ce.checkpointed_total) == (GB, GB)


def test_checkpointing_of_the_recipe_is_what_counts(tiny_recipe: Recipe, work: Work) -> None:
    recipe = with_changes(tiny_recipe, {"compute.activation_checkpointing": True})
    memory = learner_memory(recipe, work, GPUS["a100"])
    assert memory.total == memory.checkpointed_total


def test_the_optimizer_s_scratch_counts_where_it_is_more_than_activations(tiny_recipe: Recipe, work: Work) -> None:
    small = MicroBatchBytes(kept=GB // 4, on_top=GB // 4)
    work = replace(work, learner=replace(work.learner, plain_bytes=small))
    memory = learner_memory(tiny_recipe, work, GPUS["a100"])
    assert memory.working_stage == "optimizer"
    assert memory.total == 4 * GB + 1 * GB + 1 * GB


def test_a_process_may_use_its_share_of_a_gpu(tiny_recipe: Recipe, work: Work) -> None:
    recipe = with_changes(tiny_recipe, {"actors.num_gpus": 0.25})
    assert actor_memory(recipe, work, GPUS["a100"]).limit == 18 * GB


def test_nothing_is_said_where_all_fits(tiny_recipe: Recipe, work: Work) -> None:
    assert said_of_actor(tiny_recipe, work, 80) is None
    assert said_of_rank(tiny_recipe, work, 80) is None


@pytest.mark.parametrize(
    ("changes", "gigabytes", "advice"),
    [
        (
            {"actors.images_per_ticket": 4},
            8,
            "most at `decode`: lower reward.decode_batch_size (16 pictures at once)",
        ),
        (
            {"reward.decode_batch_size": 4},
            8,
            "most at `decode` of one group: set reward.decode_dtype=bfloat16, or it needs a GPU with more memory",
        ),
        (
            {"reward.decode_batch_size": 4, "reward.decode_dtype": "bfloat16"},
            8,
            "most at `decode` of one group: it needs a GPU with more memory",
        ),
        (
            {"advantage.credit": "gradient", "actors.images_per_ticket": 4},
            8,
            "most at `decode`: lower reward.gradient_batch_size (8 pictures at once)",
        ),
        (
            {"advantage.credit": "gradient", "reward.gradient_batch_size": 1},
            8,
            "most at `decode` of one picture: set reward.decode_dtype=bfloat16, "
            "or it needs a GPU with more memory",
        ),
        ({}, 2, "and its models alone 2.5 GB: it needs a GPU with more memory"),
        (
            {"actors.num_gpus": 0.1},
            20,
            "and its models alone 2.5 GB: give it more of a GPU (actors.num_gpus is 0.1)",
        ),
    ],
)
def test_an_actor_that_does_not_fit_names_the_key(
    changes: dict[str, Any], gigabytes: float, advice: str, tiny_recipe: Recipe, work: Work
) -> None:
    said = said_of_actor(with_changes(tiny_recipe, changes), work, gigabytes)
    usable = 0.9 * gigabytes * changes.get("actors.num_gpus", 1)
    assert said == f"a reward actor needs 8.5 GB of the {usable:.1f} GB that it can use, {advice}"


def test_an_actor_whose_policy_stage_is_the_largest_takes_smaller_tickets(tiny_recipe: Recipe, work: Work) -> None:
    work = replace(work, actor=replace(work.actor, peak_bytes=work.actor.peak_bytes | {"policy": 20 * GB}))
    said = said_of_actor(tiny_recipe, work, 20)
    assert said is not None
    assert said.endswith("most at `policy`: lower actors.images_per_ticket (2)")


@pytest.mark.parametrize(
    ("changes", "gigabytes", "advice"),
    [
        (
            {},
            12,
            ": lower learner.micro_batch_size (2), or set compute.activation_checkpointing=true (8.0 GB in all)",
        ),
        (
            {"learner.micro_batch_size": 1},
            12,
            ": lower learner.logit_rows (2048), or set compute.activation_checkpointing=true (8.0 GB in all)",
        ),
        ({"compute.activation_checkpointing": True}, 8, ": lower learner.micro_batch_size (2)"),
        (
            {},
            5,
            ", 5.0 GB for weights, gradients and AdamW, of which every rank holds all: it needs a GPU with more "
            "memory",
        ),
    ],
)
def test_a_rank_that_does_not_fit_names_the_key(
    changes: dict[str, Any], gigabytes: float, advice: str, tiny_recipe: Recipe, work: Work
) -> None:
    said = said_of_rank(with_changes(tiny_recipe, changes), work, gigabytes)
    total = "8.0" if changes.get("compute.activation_checkpointing") else "13.5"
    assert said == f"a learner rank needs {total} GB of the {0.9 * gigabytes:.1f} GB that it can use{advice}"


COLOCATED = {"placement": "colocated", "actors.count": 0}


def test_a_rank_that_rolls_out_also_holds_the_frozen_models_and_the_larger_of_both_kinds_of_work(
    tiny_recipe: Recipe, work: Work
) -> None:
    recipe = with_changes(tiny_recipe, COLOCATED)
    memory = learner_memory(recipe, work, GPUS["a100"])
    assert memory.total == 4 * GB + GB // 2 + 8 * GB + GB // 2 + 1 * GB
    large = replace(work, actor=replace(work.actor, peak_bytes=work.actor.peak_bytes | {"decode": 20 * GB}))
    memory = learner_memory(recipe, large, GPUS["a100"])
    assert (memory.working_stage, memory.total) == ("decode", 4 * GB + GB // 2 + 20 * GB + 1 * GB)
    said = said_of_rank(recipe, large, 20)
    assert said is not None
    assert said.endswith("most at `decode` of its rollouts: lower reward.decode_batch_size")


def test_the_store_holds_a_checkpoint_beside_two_versions_as_they_travel(tiny_recipe: Recipe, work: Work) -> None:
    state, groups = 3 * GB, tiny_recipe.buffer_capacity * tiny_recipe.group_bytes
    assert store_bytes(tiny_recipe, work).at_most == groups + 2 * GB + state
    both = {"compute.autocast": "bfloat16", "sampling.autocast": "bfloat16"}
    assert store_bytes(with_changes(tiny_recipe, both), work).at_most == groups + GB + state
    assert store_bytes(with_changes(tiny_recipe, COLOCATED), work).at_most == groups + state


def test_pictures_drawn_at_once_take_what_an_actor_s_models_leave(tiny_recipe: Recipe, work: Work) -> None:
    memory = sampling_memory(work, actor_memory(tiny_recipe, work, gpu_of(4)))
    assert memory.most == 11  # 0.9 * 4 GB less the models and the context, in tenths of a GB
    assert sampling_problem(with_changes(tiny_recipe, {"sampling.batch_size": 11}), memory) is None
    said = sampling_problem(with_changes(tiny_recipe, {"sampling.batch_size": 12}), memory)
    assert said == "12 free-running pictures at once take 0.1 GB each: set sampling.batch_size=11 or less"


def test_beside_adapters_a_rank_an_actor_and_the_store_hold_little_more_than_the_frozen_base(
    tiny_recipe: Recipe, work: Work
) -> None:
    beside = replace(work, policy_bytes=GB // 2 + GB // 10, num_trained=GB // 40, trained_bytes=GB // 10)
    narrow = {"compute.autocast": "bfloat16", "sampling.autocast": "bfloat16", "learner.prior": "kl"}
    recipe = with_changes(tiny_recipe, {"learner.lora": {"rank": 3}, **narrow})
    rank, actor = learner_memory(recipe, beside, GPUS["a100"]), actor_memory(recipe, beside, GPUS["a100"])
    assert (rank.policy, rank.gradients, rank.adamw) == (GB // 2 + GB // 10, GB // 10, 2 * GB // 10)
    assert rank.frozen == GB // 10  # the reference shares what does not train
    assert actor.policy == GB // 2 + GB // 20
    store = store_bytes(recipe, beside)
    assert (store.weights_a_version, store.state_a_checkpoint) == (GB // 20, 3 * GB // 10)
