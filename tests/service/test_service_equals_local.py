"""What the service computes: at staleness 0 exactly what `local` does, whoever does the work."""

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from deploy.runs.local_run import run_local
from deploy.service.driver import train
from tests.service.reading import events, learned_tickets, lines, summary

pytestmark = pytest.mark.ray


def metrics(folder: Path) -> list[dict]:
    return lines(folder / "metrics.jsonl")


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in metrics(folder)]


@pytest.mark.parametrize(
    "changes", [{}, {"advantage.credit": "token", "advantage.mix": 0.25}], ids=["sample credit", "token credit"]
)
def test_one_and_two_actors_give_the_losses_and_weights_of_local_bit_for_bit(small_run, changes):
    local = run_local(small_run("local", changes)).path
    assert losses(local)[0] != losses(local)[-1]
    for count in (1, 2):
        service = train(small_run(f"service-{count}", changes | {"actors.count": count})).folder.path
        assert losses(service) == pytest.approx(losses(local), rel=0, abs=1e-6)
        assert summary(service)["weights_sha256"] == summary(local)["weights_sha256"]
        assert {line["staleness_max"] for line in metrics(service)} == {0}


def test_two_ranks_give_the_parameters_of_one_to_1e_5_after_five_steps(small_run):
    one = run_local(small_run("one")).path
    two = train(small_run("two", {"learner.num_ranks": 2})).folder.path
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    expected = load_file(one / "policy.safetensors")
    actual = load_file(two / "checkpoints" / "step-000005" / "policy.safetensors")
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        assert abs(actual[name] - value).max() < 1e-5, name


def test_a_resumed_run_ends_where_an_undisturbed_one_does(small_run):
    whole = run_local(small_run("whole")).path
    train(small_run("parts", {"learner.num_steps": 2}))
    parts = train(small_run("parts")).folder.path
    assert [line["step"] for line in metrics(parts)] == [1, 2, 3, 4, 5]
    assert losses(parts) == pytest.approx(losses(whole), rel=0, abs=1e-6)
    assert summary(parts)["weights_sha256"] == summary(whole)["weights_sha256"]


def test_with_staleness_2_actors_work_ahead_and_no_group_is_older(small_run):
    recipe = small_run("async", {"buffer.max_staleness": 2, "learner.num_steps": 12, "actors.count": 2})
    folder = train(recipe).folder.path
    staleness = [line["staleness_max"] for line in metrics(folder)]
    assert max(staleness) <= 2
    assert staleness[0] == 0
    assert max(staleness) > 0, "actors never rolled out during an update"
    assert learned_tickets(folder) == list(range(12 * recipe.tickets_per_step))


def test_a_broken_image_is_skipped_counted_and_named(small_run, digit_folder):
    (digit_folder / "3" / "broken.png").write_bytes(b"not a picture")
    source = {"kind": "image_folder", "path": str(digit_folder)}
    folder = train(small_run("broken", {"source": source, "policy.num_classes": 10})).folder.path
    num_images = len(list(digit_folder.rglob("*.png")))
    assert num_images == 40
    skipped = events(folder, "image_skipped")
    assert {event["image_id"] for event in skipped} == {"3/broken.png"}
    assert summary(folder)["images_skipped"] == len(skipped) == 1
    assert summary(folder)["groups_learned"] == 39


def test_scores_during_training_are_recorded_and_change_nothing(small_run):
    plain = train(small_run("plain")).folder.path
    evaluation = {
        "evaluation.enabled": True,
        "evaluation.every": 2,
        "evaluation.num_samples": 20,
        "evaluation.num_held_out": 4,
        "evaluation.classifier": "deploy/recipes/demo/classifier.safetensors",
        "sampling.batch_size": 5,
    }
    scored = train(small_run("scored", {"actors.count": 2} | evaluation)).folder.path
    evaluations = lines(scored / "evaluations.jsonl")
    assert [line["step"] for line in evaluations] == [0, 2, 4, 5]
    assert len({line["held_out_cross_entropy"] for line in evaluations}) == 4
    for step in (0, 2, 4, 5):
        assert (scored / "samples" / f"step-{step:06d}.png").is_file()
    assert summary(scored)["weights_sha256"] == summary(plain)["weights_sha256"]
