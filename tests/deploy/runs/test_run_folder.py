"""The run folder: which one a run gets, what it resumes from, and what is written there."""

import json
import math
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from common.config.load import load_recipe, with_changes
from common.config.recipe import Recipe
from common.errors import CheckpointError, RecipeError
from common.facts import ActorLost, Ended, Resumed, Scored, Started
from common.types import TrainingState
from deploy.runs import run_lock
from deploy.runs.run_folder import RunFolder, open_run_folder
from learner.checkpoint import POLICY, CheckpointState, read_checkpoint, write_checkpoint
from learner.remote_checkpoints import RemoteCheckpoints
from tests.example_facts import EXAMPLES, as_event, learned
from tests.service.reading import lines, summary


def checkpoint(recipe: Recipe, step: int, name: str = "try") -> Path:
    """A checkpoint in the folder of run `name`."""
    folder = Path(recipe.run.dir) / name / "checkpoints"
    state = CheckpointState(step, {}, groups_learned=0, images_skipped=0, recipe={})
    training = TrainingState({"w": np.zeros(2)}, frozenset(), {"w.step": np.zeros(1)})
    return write_checkpoint(folder, training, state)


def opened(recipe: Recipe, resume: str) -> tuple[str, Path | None]:
    with open_run_folder(with_changes(recipe, {"resume": resume})) as (folder, resumed_from):
        assert folder.path.is_dir()
        assert folder.path.parent == Path(recipe.run.dir)
        return folder.path.name, resumed_from


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_the_first_run_gets_its_name(resume: str, recipe: Recipe) -> None:
    assert opened(recipe, resume) == ("try", None)


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_an_empty_folder_is_taken_and_one_in_use_is_not(resume: str, recipe: Recipe) -> None:
    runs = Path(recipe.run.dir)
    (runs / "try").mkdir(parents=True)
    assert opened(recipe, resume) == ("try", None)
    for name, following in (("try", "try-2"), ("try-2", "try-3")):
        (runs / name).mkdir(exist_ok=True)
        (runs / name / "recipe.json").touch()
        assert opened(recipe, resume) == (following, None)
    (runs / "try-3").touch()  # a file in the way
    assert opened(recipe, resume) == ("try-4", None)


def test_never_starts_anew_beside_a_run_with_checkpoints(recipe: Recipe) -> None:
    checkpoint(recipe, 3)
    assert opened(recipe, "never") == ("try-2", None)


def test_auto_goes_on_from_the_newest_intact_checkpoint_of_the_run(recipe: Recipe) -> None:
    older, newer = checkpoint(recipe, 9), checkpoint(recipe, 10)
    checkpoint(recipe, 50, name="other")
    assert opened(recipe, "auto") == ("try", newer)
    (newer / POLICY).write_bytes(b"")
    assert opened(recipe, "auto") == ("try", older)


def test_auto_begins_again_in_the_folder_of_a_run_that_ended_before_its_first_checkpoint(recipe: Recipe) -> None:
    with open_run_folder(recipe) as (folder, _):
        folder.record(Started(metrics="", resumed_from="", step=0))
    assert opened(recipe, "auto") == ("try", None)
    folder.record(Ended("failed", {"status": "failed"}))
    assert opened(recipe, "auto") == ("try", None)
    assert opened(recipe, "never") == ("try-2", None)
    folder.record(Ended("succeeded", {"status": "succeeded"}))
    assert opened(recipe, "auto") == ("try-2", None)


def test_auto_takes_the_newer_of_the_folders_checkpoint_and_the_one_at_the_url(
    recipe: Recipe, tmp_path: Path
) -> None:
    recipe = with_changes(recipe, {"checkpoint.url": (tmp_path / "store").as_uri()})
    newer, older = checkpoint(recipe, 9), checkpoint(recipe, 5)
    RemoteCheckpoints((tmp_path / "store" / "try").as_uri()).upload(newer)
    shutil.rmtree(newer)
    assert opened(recipe, "auto") == ("try", newer)
    assert read_checkpoint(newer).state.step == 9
    tenth = checkpoint(recipe, 10)
    assert opened(recipe, "auto") == ("try", tenth)
    shutil.rmtree(older.parents[1])  # another machine
    assert opened(recipe, "auto") == ("try", newer)


def test_a_new_run_does_not_mix_its_checkpoints_with_those_of_another_at_the_url(
    recipe: Recipe, tmp_path: Path
) -> None:
    recipe = with_changes(recipe, {"checkpoint.url": (tmp_path / "store").as_uri()})
    RemoteCheckpoints((tmp_path / "store" / "try").as_uri()).upload(checkpoint(recipe, 9, name="other"))
    with pytest.raises(RecipeError, match=r"holds step-000009 of another run try: set another run\.name"):
        opened(recipe, "never")


def test_a_url_to_resume_from_is_copied_into_the_runs_folder(recipe: Recipe, tmp_path: Path) -> None:
    RemoteCheckpoints((tmp_path / "store").as_uri()).upload(checkpoint(recipe, 9, name="other"))
    name, path = opened(recipe, f"{(tmp_path / 'store').as_uri()}/step-000009")
    assert (name, path) == ("try", Path(recipe.run.dir) / "try" / "checkpoints" / "step-000009")
    with pytest.raises(CheckpointError, match="step-000008 is no complete checkpoint"):
        opened(recipe, f"{(tmp_path / 'store').as_uri()}/step-000008")


def test_a_path_goes_on_from_there_in_the_runs_own_folder(recipe: Recipe) -> None:
    path = checkpoint(recipe, 50, name="other")
    assert opened(recipe, str(path)) == ("try", path)


def test_a_path_that_is_no_folder_is_refused_before_a_folder_is_made(recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match="resume is alwayss: use auto, never, or the folder of a checkpoint"):
        opened(recipe, "alwayss")
    assert not Path(recipe.run.dir).exists()


def test_a_folder_that_cannot_be_made_names_the_key_to_change(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        RecipeError, match=r"file/try cannot be made \(Not a directory\): set run\.dir to a folder"
    ):
        opened(with_changes(recipe, {"run.dir": str(tmp_path / "file")}), "auto")


def test_a_run_at_work_is_gone_on_with_by_nobody_else_and_never_finds_another_name(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "LOOK_SECONDS", 0.0)
    newest = checkpoint(recipe, 3)
    with open_run_folder(recipe) as (folder, _):
        before = sorted(folder.path.rglob("*"))
        for resume in ("auto", str(newest)):
            with pytest.raises(RecipeError, match=r"try is at work \(process \d+ on .*choose another run\.name"):
                opened(recipe, resume)
        assert opened(recipe, "never") == ("try-2", None)
        assert sorted(folder.path.rglob("*")) == before
    assert opened(recipe, "auto") == ("try", newest)


def test_two_that_start_together_get_a_folder_each(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "LOOK_SECONDS", 0.0)
    with open_run_folder(with_changes(recipe, {"resume": "never"})) as (folder, _):
        assert folder.path.name == "try"
        assert opened(recipe, "never") == ("try-2", None)
        with pytest.raises(RecipeError, match="try is at work"):
            opened(recipe, "auto")
    assert not folder.path.exists()  # nothing was written


def test_nothing_is_written_into_a_folder_that_is_none_of_a_run(recipe: Recipe) -> None:
    path = checkpoint(recipe, 50, name="other")
    pictures = Path(recipe.run.dir) / "try"
    pictures.mkdir()
    (pictures / "cat.png").touch()
    with pytest.raises(RecipeError, match="try is not empty, and no run folder: choose another"):
        opened(recipe, str(path))
    assert opened(recipe, "auto") == ("try-2", None)
    assert [each.name for each in pictures.iterdir()] == ["cat.png"]


def test_the_resolved_recipe_can_be_run_again(recipe: Recipe, tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").write_recipe(recipe)
    assert load_recipe(tmp_path / "run" / "recipe.json") == recipe


def test_a_step_is_a_line_of_metrics_and_every_fact_a_line_of_events(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    for step in (1, 2):
        folder.record(learned(step, loss=0.5))
    folder.record(ActorLost("actor-0", "died", [3, 4]))
    metrics = lines(folder.path / "metrics.jsonl")
    assert metrics == [learned(step, loss=0.5).metrics() for step in (1, 2)]
    assert [(line["step"], line["loss"]) for line in metrics] == [(1, 0.5), (2, 0.5)]
    *steps, event = lines(folder.path / "events.jsonl")
    assert [(step["event"], step["step"], step["tickets"]) for step in steps] == [
        ("step_learned", 1, [0, 1]),
        ("step_learned", 2, [2, 3]),
    ]
    time = datetime.fromisoformat(event.pop("time"))
    assert abs((datetime.now(UTC) - time).total_seconds()) < 60
    assert event == {"event": "actor_lost", "actor": "actor-0", "reason": "died", "tickets": [3, 4]}


@pytest.mark.parametrize("fact", EXAMPLES, ids=lambda fact: fact.event)
def test_each_fact_is_one_object_that_begins_with_its_time_and_name(fact, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.record(fact)
    (line,) = (folder.path / "events.jsonl").read_text().splitlines()
    event = json.loads(line, parse_constant=pytest.fail)
    assert list(event)[:2] == ["time", "event"]
    assert datetime.fromisoformat(event.pop("time")).tzinfo == UTC
    assert event == as_event(fact)


def test_scores_are_a_line_of_evaluations(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.record(Scored(5, {"fd": 10.0}))
    assert lines(folder.path / "evaluations.jsonl") == [{"step": 5, "fd": 10.0}]
    assert {path.name for path in folder.path.iterdir()} == {"events.jsonl", "evaluations.jsonl"}


def test_a_resumed_run_forgets_the_metrics_and_scores_of_the_steps_it_does_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.record(Resumed(3))  # nothing there yet
    for step in range(1, 7):
        folder.record(learned(step))
        folder.record(Scored(step, {}))
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')  # killed while it wrote
    folder.record(Ended("stopped", {"status": "stopped"}))
    folder.record(Resumed(3))
    assert not (folder.path / "summary.json").exists()
    folder.record(learned(4))
    assert [line["step"] for line in lines(folder.path / "metrics.jsonl")] == [1, 2, 3, 4]
    assert [line["step"] for line in lines(folder.path / "evaluations.jsonl")] == [1, 2, 3]
    assert len(lines(folder.path / "events.jsonl")) == 16  # what happened, happened


def test_a_summary_is_replaced_whole(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.record(Ended("failed", {"status": "failed", "error": "E"}))
    folder.record(Ended("succeeded", {"status": "succeeded", "steps": 3, "evaluation": None}))
    assert summary(folder.path) == {"status": "succeeded", "steps": 3, "evaluation": None}


def test_numbers_that_are_not_finite_become_null_however_deep(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    stages = {"fetch": math.inf, "optimizer": 0.5}
    folder.record(learned(1, loss=math.nan, grad_norm=math.inf, reward_mean=0.5, stage_seconds=stages))
    folder.record(Scored(1, {"fd": math.nan, "accuracy": 0.5}))
    folder.record(Ended("succeeded", {"status": "succeeded", "evaluation": {"after": {"fd": math.nan}}}))
    text = "".join((folder.path / f"{name}.jsonl").read_text() for name in ("metrics", "events", "evaluations"))
    line, _, scored, _, evaluation = (json.loads(each, parse_constant=pytest.fail) for each in text.splitlines())
    assert (line["loss"], line["grad_norm"], line["reward_mean"]) == (None, None, 0.5)
    assert line["stage_seconds"] == {"fetch": None, "optimizer": 0.5}
    assert scored["scores"] == {"fd": None, "accuracy": 0.5}
    assert evaluation == {"step": 1, "fd": None, "accuracy": 0.5}
    assert summary(folder.path) == {"status": "succeeded", "evaluation": {"after": {"fd": None}}}
