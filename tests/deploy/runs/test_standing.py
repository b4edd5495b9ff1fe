"""How a run stands, by its folder alone: while it is at work, at each of its ends, and after a kill."""

import json
from pathlib import Path

import pytest

from common.config.load import with_changes
from common.config.recipe import Recipe
from common.errors import ClusterError
from common.facts import Ended, Resumed, Started
from deploy.runs.run_folder import open_run_folder
from deploy.runs.run_lock import lock_run
from deploy.runs.standing import standing, standings
from deploy.runs.standing_text import standing_text, standings_text
from deploy.service.control import scale, status, statuses, stop
from tests.example_facts import learned


@pytest.fixture
def run(recipe: Recipe) -> Path:
    """A run of the service that did two steps, and was killed."""
    recipe = with_changes(recipe, {"learner.num_steps": 4})
    with open_run_folder(recipe) as (folder, _):
        folder.write_recipe(recipe)
        folder.record(Started(metrics="", resumed_from="", step=0))
        for step in (1, 2):
            folder.record(learned(step))
        (folder.checkpoints / "step-000002").mkdir(parents=True)
    return folder.path


def record(run: Path, *facts: Started | Resumed | Ended) -> None:
    with open_run_folder(Recipe.model_validate(json.loads((run / "recipe.json").read_text()))) as (folder, _):
        for fact in facts:
            folder.record(fact)


def test_a_killed_run_says_how_far_it_came_and_how_it_goes_on(run: Path) -> None:
    known = standing(str(run))
    assert (known["state"], known["step"], known["num_steps"]) == ("killed", 2, 4)
    assert known["last_checkpoint"]["step"] == 2
    assert known["next"] == f"python -m deploy train {run}/recipe.json"
    text = standing_text(known)
    assert text.startswith(
        "state       killed, last event 0 s ago\nstep        2 of 4\ncheckpoint  step 2, 0 s ago"
    )
    assert text.endswith(f"next        {known['next']}")


def test_a_run_that_a_process_holds_is_at_work(run: Path) -> None:
    with lock_run(run):
        known = standing(str(run))
        assert (known["state"], known["next"]) == ("at work", None)
        assert standing_text(known).startswith("state       at work (process ")


def test_each_end_says_what_comes_next(run: Path) -> None:
    record(run, Ended("failed", {"status": "failed", "error": "DataError: gone"}))
    assert "\nerror       DataError: gone\n" in standing_text(standing(str(run)))
    record(run, Ended("stopped", {"status": "stopped", "steps": 2}))
    assert (standing(str(run))["state"], standing(str(run))["next"].split()[3]) == ("stopped", "train")
    record(run, Ended("succeeded", {"status": "succeeded", "steps": 4}))
    assert (standing(str(run))["step"], standing(str(run))["next"]) == (4, f"python -m deploy report {run}")


def test_the_list_has_a_row_a_run_the_newest_last(run: Path) -> None:
    (run.parent / "older").mkdir()
    (run.parent / "older" / "recipe.json").write_text("{}")
    rows = standings_text(standings(str(run.parent)), "runs/").splitlines()
    assert [row.split()[:2] for row in rows] == [["run", "state"], ["older", "killed"], ["try", "killed"]]
    assert standings_text([], "runs/") == "there are no runs in runs/"


def test_a_run_that_is_not_at_work_is_answered_for_without_a_cluster(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.init", pytest.fail)
    (run / "ray.json").write_text('{"address": "127.0.0.1:1", "environment": {}}')  # a killed driver leaves it
    assert status(str(run))["state"] == "killed"
    assert [answer["state"] for answer in statuses(str(run), 1.0)] == ["killed"]
    for ask in (lambda: stop(str(run)), lambda: scale(str(run), "actors=2")):
        with pytest.raises(ClusterError, match="is not running: killed after step 2"):
            ask()


def test_a_run_at_work_whose_ray_is_dead_says_so_at_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.init", pytest.fail)
    (run / "ray.json").write_text('{"address": "127.0.0.1:1", "environment": {}}')
    with lock_run(run), pytest.raises(ClusterError, match=r"is at work \(process .*no Ray cluster answers at 127"):
        status(str(run))


def test_a_dead_address_of_the_users_is_told_as_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.init", pytest.fail)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    for ask in (lambda: status("try"), lambda: stop(str(run)), lambda: scale("try", "actors=2")):
        with pytest.raises(ClusterError, match=r"no Ray cluster answers at RAY_ADDRESS=127\.0\.0\.1:1"):
            ask()
