"""What `train` and `local` say at their end."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.atomic import write_json
from deploy.__main__ import main
from deploy.reporting import report

SUMMARY = {"status": "succeeded", "steps": 2, "groups_learned": 8, "images_skipped": 0, "evaluation": None}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that `train` does at once."""
    folder = tmp_path / "runs" / "try"
    write_json(folder / "recipe.json", {"run": {"name": "try"}})
    outcome = SimpleNamespace(summary=SUMMARY, folder=SimpleNamespace(path=folder), stop_signal=None)
    monkeypatch.setattr("deploy.service.driver.train", lambda *_: outcome)
    monkeypatch.setattr("deploy.runs.local_run.run_local", lambda _: outcome.folder)
    return folder


@pytest.mark.parametrize("command", ["train", "local"])
def test_it_ends_with_the_time_taken_and_the_report(
    command: str, run: Path, recipe_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, recipe_file]) == 0
    first, *_, folder, page = capsys.readouterr().out.splitlines()
    assert first.startswith("succeeded after 2 steps ")
    assert first.endswith("in 0 s")
    assert folder == f"run folder  {run}"
    assert page == f"report      {run / 'report.html'}"
    assert "<h1>try" in (run / "report.html").read_text()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ZeroDivisionError("of a page")])
@pytest.mark.parametrize("command", ["train", "local"])
def test_a_report_that_cannot_be_written_fails_nothing(
    command: str,
    error: Exception,
    run: Path,
    recipe_file: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(*_: Any) -> None:
        raise error

    monkeypatch.setattr(report, "replacing" if isinstance(error, OSError) else "render", broken)
    assert main([command, recipe_file]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("report      not written (")
    assert ("No space left on device" in last) == isinstance(error, OSError)
    assert last.endswith(f"; try again: python -m deploy report {run}")
    assert not (run / "report.html").exists()
