"""Groups that a run recorded, learned from again."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from common.config.recipe import Recipe
from common.errors import DataError, RecipeError
from deploy.runs.group_records import recorded_steps
from deploy.runs.local_run import run_local
from deploy.runs.replay import replay
from deploy.service.driver import Parts, train
from tests.fakes import FakeRay, FakeSession
from tests.service.reading import digest, lines


def recorded(recipe: Recipe) -> Path:
    ray = FakeRay()
    return train(recipe, Parts(ray=ray, session=FakeSession(ray))).folder.path


@pytest.fixture
def run(small_run) -> Path:
    return recorded(small_run("run", {"record.groups": True, "learner.num_steps": 3}))


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in lines(folder / "metrics.jsonl")]


def test_a_replay_has_the_losses_and_the_weights_of_the_run(run: Path) -> None:
    assert list(recorded_steps(run / "groups")) == [1, 2, 3]
    done = replay(str(run), [])
    assert losses(done.folder.path) == losses(run)
    assert digest(done.folder.path) == digest(run)
    assert (done.steps, done.largest_difference, done.folder.path.name) == (3, 0.0, "run-replay")


def test_other_settings_of_the_learner_give_other_losses(run: Path) -> None:
    done = replay(str(run), ["learner.ce_weight=0.5", "learner.num_steps=2"])
    assert done.steps == 2
    assert losses(done.folder.path)[0] != losses(run)[0]
    assert done.largest_difference > 0.1


def test_maps_that_were_recorded_can_be_learned_from_with_either_credit(small_run) -> None:
    changes = {"record.groups": True, "learner.num_steps": 1, "advantage.credit": "token"}
    run = recorded(small_run("run", changes))
    assert replay(str(run), []).largest_difference == 0
    by_sample = replay(str(run), ["advantage.credit=sample"])
    assert digest(by_sample.folder.path) != digest(run)


def test_a_resumed_run_is_replayed_from_its_beginning_without_the_steps_that_it_did_again(small_run) -> None:
    recorded(small_run("run", {"record.groups": True, "learner.num_steps": 2}))
    run = recorded(small_run("run", {"record.groups": True, "learner.num_steps": 4}))
    done = replay(str(run), [])
    assert (done.steps, done.largest_difference) == (4, 0.0)
    assert digest(done.folder.path) == digest(run)


def test_a_recording_that_begins_after_a_checkpoint_begins_with_its_state(small_run) -> None:
    recorded(small_run("run", {"learner.num_steps": 2}))
    run = recorded(small_run("run", {"record.groups": True, "learner.num_steps": 4}))
    assert list(recorded_steps(run / "groups")) == [3, 4]
    assert digest(replay(str(run), []).folder.path) == digest(run)
    (run / "checkpoints" / "step-000002").rename(run / "checkpoints" / "elsewhere")
    with pytest.raises(DataError, match=r"begins with step 3, and .*step-000002 is not there: record a run"):
        replay(str(run), [])


def test_gradients_that_were_recorded_can_be_learned_from_with_other_settings_of_the_learner(small_run) -> None:
    changes = {"record.groups": True, "learner.num_steps": 2, "advantage.credit": "gradient", "group.size": 1}
    run = recorded(small_run("run", changes))
    same = replay(str(run), [])
    assert same.largest_difference == 0
    assert digest(same.folder.path) == digest(run)
    other = replay(str(run), ["advantage.scale=global", "advantage.curvature=0.2"])
    assert digest(other.folder.path) != digest(run)


@pytest.mark.parametrize(
    ("own", "override", "message"),
    [
        ({}, "reward.lpips=0", "is that of mse x 1, lpips x 1, and the recipe weighs mse x 1: leave the weights"),
        (
            {},
            "advantage.credit=sample",
            r"reward\.mse compares samples under .*=sample, and these groups keep 1 of 4",
        ),
        (
            {"reward.python": {"tests.own_terms:term": 1}},
            "group.size=2",
            "has 4 samples per group and the recipe 2",
        ),
    ],
)
def test_what_gradients_were_not_recorded_for_is_refused(
    small_run, own: dict[str, Any], override: str, message: str
) -> None:
    changes = {"record.groups": True, "learner.num_steps": 1, "advantage.credit": "gradient"}
    run = recorded(small_run("run", changes | own))
    with pytest.raises((DataError, RecipeError), match=message) as caught:
        replay(str(run), [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("group.size=2", "has 4 samples per group and the recipe 2: leave group.size as it was recorded"),
        ("reward.l1=1", r"reward\.l1 has the weight 1, and these groups hold mse, lpips: set its weight to 0, or"),
        ("advantage.credit=token", "were recorded without reward maps: leave it at sample"),
        ("advantage.credit=gradient", "were recorded without the reward's gradient: record them with"),
    ],
)
def test_what_was_not_recorded_is_refused_in_one_line_and_leaves_no_folder(
    run: Path, override: str, message: str
) -> None:
    with pytest.raises((DataError, RecipeError), match=message) as caught:
        replay(str(run), [override])
    assert "\n" not in str(caught.value)
    assert not run.with_name("run-replay").exists()


def test_a_recording_of_another_schema_version_is_refused_in_one_line(run: Path) -> None:
    path = run / "groups" / "step-000001.arrow"
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    older = table.replace_schema_metadata(table.schema.metadata | {b"schema_version": b"2"})
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_file(out, older.schema) as writer:
        writer.write_table(older)
    with pytest.raises(DataError, match="these groups have schema version 2, this code reads 3: learn from them"):
        replay(str(run), [])


def test_a_gap_a_broken_file_and_a_run_without_a_recording_are_named(run: Path, small_run) -> None:
    (run / "groups" / "step-000002.arrow").unlink()
    with pytest.raises(DataError, match=r"step 2 of .* is not recorded, but later ones are"):
        replay(str(run), [])
    (run / "groups" / "step-000001.arrow").write_bytes(b"no arrow")
    with pytest.raises(DataError, match=r"step-000001\.arrow is not a recording of groups"):
        replay(str(run), ["learner.num_steps=1"])
    plain = recorded(small_run("plain", {"learner.num_steps": 1}))
    with pytest.raises(DataError, match=r"holds no recorded groups: train it with record\.groups=true"):
        replay(str(plain), [])
    with pytest.raises(RecipeError, match="there is no run folder nowhere or runs/nowhere"):
        replay("nowhere", [])


def test_local_has_no_groups_to_record(small_run) -> None:
    with pytest.raises(RecipeError, match=r"record\.groups is true, which `train` alone can do"):
        run_local(small_run("run", {"record.groups": True}))
