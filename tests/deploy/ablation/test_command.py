"""`ablate`, through the command line: it runs, goes on, and writes its pages."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.__main__ import main

StudyFile = Callable[..., str]


@pytest.mark.slow
def test_a_study_runs_goes_on_where_it_was_and_keeps_other_sections(
    study_file: StudyFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, notes = tmp_path / "out", tmp_path / "results.md"
    notes.write_text("# Notes\n\nBefore.\n")
    argv = ["ablate", study_file(seeds=[3]), "--out", str(out), "--markdown", str(notes)]
    assert main(argv) == 0
    assert "0 of 2 cells are done, 3 runs to do" in capsys.readouterr().out
    first = (out / "cells/all-seed3.json").read_bytes()
    prior = json.loads((out / "cells/prior_alone-seed3.json").read_text())
    written = notes.read_text()
    assert written.startswith("# Notes\n\nBefore.\n\n<!-- study mini -->\n## Study: mini\n")
    assert written.endswith("<!-- end of study mini -->\n")
    assert "2 of 2 cells are finished: 1 of 1 seeds a variant" in written
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") == 3  # the base and both variants
    assert "http" not in page

    (out / "cells/prior_alone-seed3.json").unlink()
    assert main(argv) == 0
    assert "1 of 2 cells are done, 1 runs to do" in capsys.readouterr().out
    assert (out / "cells/all-seed3.json").read_bytes() == first
    again = json.loads((out / "cells/prior_alone-seed3.json").read_text())
    assert (again["scores"], again["steps"]) == (prior["scores"], prior["steps"])  # the process is not part of it

    assert main([*argv, "learner.lr=0.5"]) == 2
    assert "made with other settings than the study has now" in capsys.readouterr().err


@pytest.mark.slow
def test_a_variant_that_fails_is_named_and_the_others_are_finished(
    study_file: StudyFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = {"policy.checkpoint": str(tmp_path / "no.safetensors")}
    file = study_file(variants={"broken": missing, "all": {}}, seeds=[0])
    assert main(["ablate", file, "--out", str(tmp_path / "out"), "--jobs", "1"]) == 1
    assert "broken-seed0: CheckpointError: " in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out/cells").glob("*.json")) == ["all-seed0.json", "base.json"]


def test_what_is_finished_is_reported_without_a_run(study_file: StudyFile, tmp_path: Path) -> None:
    file = study_file(question="Is <b>this</b> & that escaped?")
    assert main(["ablate", file, "--out", str(tmp_path / "out"), "--report"]) == 0
    assert "0 of 4 cells are finished: 0 of 2 seeds a variant" in (tmp_path / "out/report.md").read_text()
    assert "Is &lt;b&gt;this&lt;/b&gt; &amp; that escaped?" in (tmp_path / "out/report.html").read_text()
    assert not (tmp_path / "out/cells").exists()


def test_jobs_are_at_least_one(study_file: StudyFile, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", study_file(), "--jobs", "0"]) == 2
    assert "--jobs is 0: use 1 or more" in capsys.readouterr().err
