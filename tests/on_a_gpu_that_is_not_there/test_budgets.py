"""What a GPU may be made to wait for and to carry, per unit of work. Lower a budget where the code needs less."""

import pytest

from tests.fake_cuda.counts import Counts, total_in
from tests.fake_cuda.gpu import fake_cuda
from tests.on_a_gpu_that_is_not_there.conftest import Recipes
from tests.on_a_gpu_that_is_not_there.runs import Actor, Rank
from tests.on_a_gpu_that_is_not_there.variants import BFLOAT16, VARIANTS

# The tiny recipe, B = 4 images of 32 px a ticket, G = 4, T = 64, two micro-batches a step, 7,552 weights.
PIXEL_BYTES = 4 * 3 * 32 * 32 * 4  # to the device, per ticket: float32, made of uint8 on the CPU
OTHER_INPUT_BYTES = 4 * (64 * 4 * 8 + 63 * 9 + 8)  # a float64 per draw, context noise (bool and int64), labels
GROUP_BYTES = 4 * (64 * 4 * (4 + 4) + (63 + 64) * 4 + 8 + 2 * 4 * 4)
"""Off the device, per ticket: samples with their log-probabilities, context and targets, the label, two terms."""
TICKET_SYNCS = 7  # one for each array of the groups: three of tokens, log-probabilities, the label, two terms
MICRO_BATCH_SYNCS = (
    12  # one for each number of the report: seven sums, reward mean and std, flat groups, two terms
)
STEP_SYNCS = 1  # beside those of its micro-batches: the gradient's norm
STEP_INPUT_BYTES = (
    10416  # to the device, per step: the groups, and each group's weight of 8 bytes twice a micro-batch
)
PICTURES_SYNCS = 1  # of a batch of free-running pictures: their pixels; none per token
WEIGHT_BYTES = 7552 * 4  # off the device, per snapshot; and to it, where one is loaded


@pytest.mark.parametrize("changes", [{}, BFLOAT16], ids=["float32", "bfloat16"])
def test_a_run_keeps_to_its_budgets(recipe_of: Recipes, changes: dict) -> None:
    with fake_cuda() as counts:
        recipe = recipe_of(changes, "cuda")
        actor, rank = Actor(recipe), Rank(recipe)
        check_budgets(actor, rank, counts)


def check_budgets(actor: Actor, rank: Rank, counts: Counts) -> None:
    counts.reset()
    groups = actor.roll_out()
    pixel_bytes = total_in(counts.to_device_bytes, "actors/image_batch.py") - 4 * 8  # without the labels
    assert pixel_bytes <= PIXEL_BYTES, counts.to_device_bytes
    assert counts.to_device_bytes.total() <= PIXEL_BYTES + OTHER_INPUT_BYTES, counts.to_device_bytes
    assert counts.off_device_bytes.total() <= GROUP_BYTES, counts.off_device_bytes
    assert counts.syncs.total() <= TICKET_SYNCS, counts.syncs

    counts.reset()
    rank.train(groups)
    assert counts.to_device_bytes.total() <= STEP_INPUT_BYTES, counts.to_device_bytes
    assert counts.off_device_bytes.total() == 0, counts.off_device_bytes
    assert counts.syncs.total() <= 2 * MICRO_BATCH_SYNCS + STEP_SYNCS, counts.syncs

    weights, moments = rank.state()
    rank.resume(weights, moments)
    assert total_in(counts.off_device_bytes, "common/weights/snapshot.py") <= WEIGHT_BYTES, counts.off_device_bytes
    assert total_in(counts.to_device_bytes, "common/weights/snapshot.py") <= WEIGHT_BYTES, counts.to_device_bytes

    counts.reset()
    rank.train(groups)  # with moments that came from another rank
    assert counts.syncs.total() <= 2 * MICRO_BATCH_SYNCS + STEP_SYNCS, counts.syncs

    counts.reset()
    actor.generate()
    assert counts.syncs.total() <= PICTURES_SYNCS, counts.syncs


@pytest.mark.parametrize(
    ("name", "syncs"),
    [
        ("credit by token, of three terms", TICKET_SYNCS + 6),  # two more terms, and the maps of four
        ("credit by gradient", TICKET_SYNCS + 3),  # gradient, mean code, spread
        ("captions", TICKET_SYNCS + 1),  # features and mask in the place of a label
    ],
)
def test_what_a_recipe_adds_to_a_ticket_is_an_array_each(recipe_of: Recipes, name: str, syncs: int) -> None:
    with fake_cuda() as counts:
        actor = Actor(recipe_of(VARIANTS[name], "cuda"))
        counts.reset()
        actor.roll_out()
        assert counts.syncs.total() <= syncs, counts.syncs
