"""What a GPU may be made to wait for and to carry, per unit of work. Lower a budget where the code needs less."""

from collections import Counter

from tests.fake_cuda.counts import Counts
from tests.on_a_gpu_that_is_not_there.runs import Actor, Rank

# The tiny recipe: B = 4 images of 32 px a ticket, G = 4, T = 64, two micro-batches a step, 7,552 weights.
PIXEL_BYTES = 4 * 3 * 32 * 32  # to the device, per ticket: uint8
LABEL_BYTES = 4 * 8
DRAW_BYTES = 4 * (
    64 * 4 * 8 + 63 * 9
)  # to the device, per ticket: a float64 per draw; a bool and a code per context token
GROUP_BYTES = 4 * (64 * 4 * (4 + 4) + (63 + 64) * 4 + 2 * 4 * 4) + LABEL_BYTES
"""Off the device, per ticket: samples with their log-probabilities, context and targets, two terms."""
TICKET_SYNCS = 7  # one per array of the groups: three of tokens, log-probabilities, the label, two terms
MICRO_BATCH_SYNCS = 1  # all numbers of the report together
STEP_SYNCS = 1  # beside those of its micro-batches: the gradient's norm
STEP_INPUT_BYTES = GROUP_BYTES + 4 * 2 * 4  # to the device, per step: the groups, and twice each group's weight
STEP_OUTPUT_BYTES = 2 * 12 * 4  # off the device, per step and micro-batch: nine sums, flat groups, two terms
WEIGHT_BYTES = 7552 * 4  # off the device, per copy of the weights for ranks and checkpoints
NARROW_WEIGHT_BYTES = WEIGHT_BYTES - 6976 * 2  # per publication, if actors hold linear layers in bfloat16
MOMENT_BYTES = 2 * WEIGHT_BYTES + 18 * 4  # off the device, per copy of AdamW's state: moments, step counts
PUBLICATION_SYNCS = 0  # beside one synchronize on each side
PICTURES_SYNCS = 1  # per batch of free-running pictures: their pixels; none per token


def check_budgets(actor: Actor, rank: Rank, counts: Counts) -> None:
    """Of the tiny recipe, with credit by sample."""
    counts.reset()
    groups = actor.roll_out()
    pixels = {
        place: num
        for place, num in counts.to_device_bytes.items()
        if place.startswith(("actors/image_batch.py", "common/pixels.py"))
    }
    keep_within(Counter(pixels), PIXEL_BYTES + LABEL_BYTES, "bytes of pictures to the device in a ticket")
    keep_within(counts.to_device_bytes, PIXEL_BYTES + DRAW_BYTES + LABEL_BYTES, "bytes to the device in a ticket")
    keep_within(counts.off_device_bytes, GROUP_BYTES, "bytes off the device in a ticket")
    keep_within(counts.syncs, TICKET_SYNCS, "waits in a ticket")

    counts.reset()
    rank.train(groups)
    keep_within(counts.to_device_bytes, STEP_INPUT_BYTES, "bytes to the device in a step")
    keep_within(counts.off_device_bytes, STEP_OUTPUT_BYTES, "bytes off the device in a step")
    keep_within(counts.syncs, 2 * MICRO_BATCH_SYNCS + STEP_SYNCS, "waits in a step")

    counts.reset()
    weights, moments = rank.state()
    keep_within(counts.off_device_bytes, WEIGHT_BYTES + MOMENT_BYTES, "bytes off the device for a rank's state")
    rank.resume(weights, moments)
    keep_within(counts.to_device_bytes, WEIGHT_BYTES + MOMENT_BYTES, "bytes to the device for a rank's state")

    counts.reset()
    rank.train(groups)
    keep_within(counts.syncs, 2 * MICRO_BATCH_SYNCS + STEP_SYNCS, "waits in a step of a resumed rank")

    publication_bytes = NARROW_WEIGHT_BYTES if rank.is_narrow else WEIGHT_BYTES
    counts.reset()
    published = rank.publish()
    keep_within(counts.off_device_bytes, publication_bytes, "bytes off the device in a publication")
    actor.take(weights)  # an older version, for an evaluation
    counts.to_device_bytes.clear()
    actor.take(published)
    keep_within(counts.to_device_bytes, publication_bytes, "bytes to the device in a publication")
    keep_within(counts.syncs, PUBLICATION_SYNCS, "waits in a publication")

    counts.reset()
    actor.generate()
    keep_within(counts.syncs, PICTURES_SYNCS, "waits in free-running pictures")


def keep_within(counter: Counter[str], budget: int, what: str) -> None:
    assert counter.total() <= budget, (
        f"{what}: {counter.total()}, and the budget is {budget}: {counter.most_common()}"
    )
