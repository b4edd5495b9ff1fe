"""What the service computes: at staleness 0 exactly what `local` does, whoever does the work."""

import re
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from deploy.runs.local_run import run_local
from tests.service.reading import digest, learned_tickets, lines

pytestmark = pytest.mark.ray

STE = {"learner.method": "ste", "ste.sample": "gumbel"}
REAR = {"learner.embedding_weight": 1, "context.noise_per_sequence": True, "context.kernel": "self"}
DECODER = {
    "learner.method": "decoder",
    "group.size": 1,
    "decoder.clean_weight": 1,
    "decoder.anchor_weight": 1,
    "learner.lr": 1e-5,  # biases before a norm have gradients of rounding, and AdamW steps as far for these
}
BESIDE = {"decoder": {"ema_weight": 1, "ema_decay": 0.5, "gan_weight": 0.1, "gan_lr": 1e-3}}
# the scale that ranks have to agree on
GRADIENT = {"advantage.credit": "gradient", "advantage.scale": "global", "group.size": 1}
LORA = {"learner.lora": {"rank": 3}}

FREE = {
    "rollout": {"kind": "free_running", "guidance_scale": 2},
    "reward.mse": 0,
    "reward.lpips": 0,
    "reward.classifier": 1,
    "learner.prior": "kl",
    "context.noise": 0,
    "group.top_k": 12,
}
BOTH = {
    "rollout": {"teacher_forced": 0.5, "free_running": 0.5, "guidance_scale": 2},
    "reward.classifier": 0.5,
}


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in lines(folder / "metrics.jsonl")]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"advantage.credit": "token", "advantage.mix": 0.25}, marks=pytest.mark.chaos),
        pytest.param(GRADIENT, marks=pytest.mark.chaos),
        pytest.param(FREE, marks=pytest.mark.chaos),
        pytest.param(BOTH, marks=pytest.mark.chaos),
    ],
    ids=["sample credit", "token credit", "credit by gradient", "free-running", "both kinds"],
)
def test_one_and_two_actors_give_the_losses_and_weights_of_local_bit_for_bit(small_run, serve, changes):
    local = run_local(small_run("local", changes)).path
    assert losses(local)[0] != losses(local)[-1]
    for count in (1, 2):
        service = serve(small_run(f"service-{count}", changes | {"actors.count": count})).folder.path
        assert losses(service) == pytest.approx(losses(local), rel=0, abs=1e-6)
        assert digest(service) == digest(local)
        assert {line["staleness_max"] for line in lines(service / "metrics.jsonl")} == {0}


@pytest.mark.parametrize(
    "changes",
    [{}, *(pytest.param(each, marks=pytest.mark.chaos) for each in (GRADIENT, LORA, STE, REAR, DECODER, BOTH))],
    ids=["sample credit", "credit by gradient", "adapters", "straight through", "reAR", "decoder", "both kinds"],
)
def test_two_ranks_give_the_parameters_of_one_to_1e_5_after_five_steps(small_run, serve, changes):
    one = run_local(small_run("one", changes)).path
    two = serve(small_run("two", changes | {"learner.num_ranks": 2})).folder.path
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    (file,) = [path.name for path in one.glob("*.safetensors")]
    expected = load_file(one / file)
    actual = load_file(two / "checkpoints" / "step-000005" / file)
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        if changes is DECODER and name.endswith(".bias"):
            continue  # these move as rounding has it
        assert abs(actual[name] - value).max() < 1e-5, name


@pytest.mark.chaos
def test_two_ranks_have_the_average_and_the_discriminator_of_one(small_run, serve):
    """Of which the latter goes a hundred times as far as they may differ."""
    changes = {"learner.method": "decoder", "group.size": 1, "reward.lpips": 0, **BESIDE}
    one, two = (
        load_file(
            serve(small_run(f"ranks-{num}", changes | {"learner.num_ranks": num})).folder.path
            / "checkpoints"
            / "step-000005"
            / "optimizer.safetensors"
        )
        for num in (1, 2)
    )
    assert one.keys() == two.keys()
    averages = [name for name in one if name.startswith("decoder average.") and name.endswith(".weight")]
    layers = [name for name in one if re.fullmatch(r"patch discriminator\.layers\.\d\.(weight|bias)", name)]
    assert averages
    assert len(layers) == 8
    for name in averages + layers:
        assert abs(one[name] - two[name]).max() < 5e-5, name


@pytest.mark.parametrize(
    "changes",
    [{}, *(pytest.param(each, marks=pytest.mark.chaos) for each in (GRADIENT, LORA))],
    ids=["sample credit", "credit by gradient", "adapters"],
)
def test_a_resumed_run_ends_where_an_undisturbed_one_does(small_run, serve, changes):
    whole = run_local(small_run("whole", changes)).path
    serve(small_run("parts", changes | {"learner.num_steps": 2}))
    parts = serve(small_run("parts", changes)).folder.path
    assert [line["step"] for line in lines(parts / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    assert losses(parts) == pytest.approx(losses(whole), rel=0, abs=1e-6)
    assert digest(parts) == digest(whole)


COLOCATED = {"placement": "colocated", "actors.count": 0}


def test_a_rank_that_also_rolls_out_gives_the_weights_of_local_bit_for_bit_resumed_or_joined_by_an_actor(
    small_run, serve
):
    local = run_local(small_run("local")).path
    serve(small_run("colocated", COLOCATED | {"learner.num_steps": 2}))
    resumed = serve(small_run("colocated", COLOCATED)).folder.path
    joined = serve(small_run("joined", COLOCATED | {"actors.count": 1})).folder.path
    for folder in (resumed, joined):
        assert losses(folder) == pytest.approx(losses(local), rel=0, abs=1e-6)
        assert digest(folder) == digest(local)


@pytest.mark.chaos
def test_two_ranks_that_also_roll_out_give_the_weights_of_two_that_do_not_bit_for_bit(small_run, serve):
    split = serve(small_run("split", {"learner.num_ranks": 2})).folder.path
    colocated = serve(small_run("colocated", COLOCATED | {"learner.num_ranks": 2})).folder.path
    assert losses(colocated) == losses(split)
    assert digest(colocated) == digest(split)


def test_with_staleness_2_actors_work_ahead_and_no_group_is_older(small_run, serve):
    recipe = small_run("async", {"buffer.max_staleness": 2, "learner.num_steps": 12, "actors.count": 2})
    folder = serve(recipe).folder.path
    staleness = [line["staleness_max"] for line in lines(folder / "metrics.jsonl")]
    assert max(staleness) <= 2
    assert staleness[0] == 0
    assert max(staleness) > 0, "actors never rolled out during an update"
    assert learned_tickets(folder) == list(range(12 * recipe.tickets_per_step))
