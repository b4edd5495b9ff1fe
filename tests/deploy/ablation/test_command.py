"""`ablate`, through the command line: it runs, goes on, and writes its pages."""

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from deploy.__main__ import main
from deploy.ablation.results import StudyFolder
from deploy.ablation.run_cell import run_cell
from deploy.ablation.study import load_study

StudyFile = Callable[..., str]


@pytest.fixture(autouse=True)
def one_base_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cell is a process, whose start takes most of the time here."""
    monkeypatch.setattr("deploy.ablation.study.LEAST_BASE_SEEDS", 1)


@pytest.mark.slow
def test_a_study_runs_goes_on_where_it_was_and_keeps_other_sections(
    study_file: StudyFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, notes = tmp_path / "out", tmp_path / "results.md"
    notes.write_text("# Notes\n\nBefore.\n")
    argv = ["ablate", study_file(seeds=[3]), "--out", str(out), "--markdown", str(notes)]
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert said.startswith("0 of 2 cells are finished; the base is scored under 0 of 1 sampling seeds\n")
    counted = [line.split()[0] for line in said.splitlines() if "seed " in line and " s  " in line]
    assert sorted(counted) in (["0/2", "1/2", "2/2"], ["1/2", "1/2", "2/2"], ["1/2", "2/2", "2/2"])
    assert said.splitlines()[-4] == "2 of 2 cells are finished: 1 of 1 seeds a variant."
    everything, prior = (StudyFolder(out).picture(cell).with_suffix(".json") for cell in load_study(argv[1]).cells)
    first, second = everything.read_bytes(), json.loads(prior.read_text())
    written = notes.read_text()
    assert written.startswith("# Notes\n\nBefore.\n\n<!-- study mini -->\n## Study: mini\n")
    assert written.endswith("<!-- end of study mini -->\n")
    assert "2 of 2 cells are finished: 1 of 1 seeds a variant" in written
    for figure in ("study_mini.svg", "study_mini.jpg"):
        assert f"](images/{figure})" in written
    plots = ElementTree.parse(tmp_path / "images/study_mini.svg").getroot()
    assert sum(circle.get("class") == "dot" for circle in plots.findall(".//{*}circle")) == 2 * 2  # cells, scores
    with Image.open(tmp_path / "images/study_mini.jpg") as pictures:
        pictures.load()
    page = (out / "mini.html").read_text()
    assert page.count("data:image/png") == 3  # the base and both variants
    assert "http" not in page

    prior.unlink()
    assert main(argv) == 0
    assert "1 of 2 cells are finished; the base is scored under 1 of 1 sampling seeds" in capsys.readouterr().out
    assert everything.read_bytes() == first
    again = json.loads(prior.read_text())
    assert (again["scores"], again["steps"]) == (second["scores"], second["steps"])  # in a process of its own


@pytest.mark.slow
def test_a_variant_that_fails_is_named_and_the_others_are_finished(
    study_file: StudyFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = {"policy.checkpoint": str(tmp_path / "no.safetensors")}
    file = study_file(variants={"broken": missing, "all": {}}, seeds=[0])
    study, folder = load_study(file), StudyFolder(tmp_path / "out")
    run_cell(study.base[0], folder)
    assert main(["ablate", file, "--out", str(tmp_path / "out"), "--jobs", "1"]) == 1
    assert "broken, seed 0: CheckpointError: " in capsys.readouterr().out
    assert [folder.result(cell) is None for cell in (*study.base, *study.cells)] == [False, True, False]


def test_what_is_finished_is_reported_without_a_run(study_file: StudyFile, tmp_path: Path) -> None:
    file = study_file(question="Is <b>this</b> & that escaped?")
    assert main(["ablate", file, "--out", str(tmp_path / "out"), "--report"]) == 0
    assert "0 of 4 cells are finished: 0 of 2 seeds a variant" in (tmp_path / "out/mini.md").read_text()
    assert "Is &lt;b&gt;this&lt;/b&gt; &amp; that escaped?" in (tmp_path / "out/mini.html").read_text()
    assert not (tmp_path / "out/cells").exists()


def test_jobs_are_at_least_one(study_file: StudyFile, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", study_file(), "--jobs", "0"]) == 2
    assert "--jobs is 0: use 1 or more" in capsys.readouterr().err
