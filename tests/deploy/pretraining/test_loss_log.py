"""The numbers of a stage's steps: kept over an interruption, each step once, and drawn."""

from pathlib import Path

from deploy.pretraining.loss_log import LossLog, charts_of, read_steps
from learner.pretraining.loop import StageProgress


def log_steps(folder: Path, *steps: int, loss: float) -> None:
    with LossLog(folder, "policy") as log:
        for step in steps:
            log.record(StageProgress(step, 5, loss, {"token accuracy": 0.5}))


def test_a_resumed_stage_repeats_steps_and_each_is_kept_once(tmp_path: Path) -> None:
    log_steps(tmp_path, 1, 2, 3, loss=4.0)
    with (tmp_path / "policy.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # the kill
    log_steps(tmp_path, 3, 4, 5, loss=2.0)
    lines = list(read_steps(tmp_path / "policy.jsonl"))
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 4.0), (2, 4.0), (3, 2.0), (4, 2.0), (5, 2.0)]


def test_a_stage_trained_anew_begins_its_log_anew(tmp_path: Path) -> None:
    log_steps(tmp_path, 1, 2, 3, loss=4.0)
    log_steps(tmp_path, 1, loss=3.0)
    assert [line["loss"] for line in read_steps(tmp_path / "policy.jsonl")] == [3.0]


def test_a_log_that_is_opened_and_not_written_stays_as_it_was(tmp_path: Path) -> None:
    log_steps(tmp_path, 1, 2, loss=4.0)
    log_steps(tmp_path, loss=1.0)
    assert len(list(read_steps(tmp_path / "policy.jsonl"))) == 2


def test_every_number_has_a_curve_and_one_step_has_none(tmp_path: Path) -> None:
    assert charts_of(tmp_path / "policy.jsonl") == []
    log_steps(tmp_path, 1, loss=4.0)
    assert charts_of(tmp_path / "policy.jsonl") == []
    log_steps(tmp_path, 1, 2, loss=4.0)
    charts = charts_of(tmp_path / "policy.jsonl")
    assert [(chart.title, chart.series[0].values) for chart in charts] == [
        ("Loss", [4.0, 4.0]),
        ("Token accuracy", [0.5, 0.5]),
    ]
