"""The supervised loop: its schedule, and that an interruption changes nothing."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from common.config.service import PretrainStage
from learner.pretraining.loop import StageProgress, schedule, train_stage

STAGE = PretrainStage(num_steps=12, lr=0.1)


class InterruptionError(Exception):
    pass


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))


def train(
    path: Path, stop_after: int | None = None, save_every: int = 4, stage: PretrainStage = STAGE
) -> tuple[nn.Module, list[StageProgress]]:
    """Train a fresh model; `stop_after` interrupts it after so many steps."""
    own, seen = model(), []

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        batch = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        return (own(batch)[:, 0] - batch.sum(dim=1)).square().mean(), {"twice": 2.0 * step}

    def on_step(progress: StageProgress) -> None:
        seen.append(progress)
        if progress.step == stop_after:
            raise InterruptionError

    try:
        train_stage(own, loss, stage, state_path=path, save_every=save_every, on_step=on_step)
    except InterruptionError:
        assert stop_after is not None
    return own, seen


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    return all(value.equal(other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("stop_after", [1, 4, 6, 11])
def test_an_interrupted_stage_ends_with_the_weights_of_an_undisturbed_one(stop_after: int, tmp_path: Path) -> None:
    whole, steps = train(tmp_path / "whole.pt")
    train(tmp_path / "parts.pt", stop_after)
    parts, rest = train(tmp_path / "parts.pt")
    assert same_weights(whole, parts)
    assert rest == steps[4 * (stop_after // 4) :]  # from the last saved state on


def test_training_moves_the_weights_and_leaves_eval_mode(tmp_path: Path) -> None:
    trained, steps = train(tmp_path / "state.pt")
    assert not trained.training
    assert not same_weights(trained, model())
    assert steps[-1].loss < steps[0].loss
    assert [progress.step for progress in steps] == list(range(1, 13))
    assert (steps[-1].num_steps, steps[-1].shown) == (12, {"twice": 22.0})


def test_dropout_is_on_and_draws_anew_each_step(tmp_path: Path) -> None:
    own, masks = nn.Dropout(0.5), []
    scale = nn.Parameter(torch.ones(()))

    def loss(step: int) -> tuple[Tensor, Mapping[str, float]]:
        masks.append(tuple(own(torch.ones(32)).tolist()))
        return scale.square(), {}

    container = nn.ModuleList([own])
    container.scale = scale
    train_stage(
        container, loss, STAGE, state_path=tmp_path / "state.pt", save_every=100, on_step=lambda progress: None
    )
    assert len(set(masks)) == 12


def test_a_finished_stage_is_not_trained_again(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "state.pt", save_every=12)
    again, steps = train(tmp_path / "state.pt", save_every=12)
    assert steps == []
    assert not again.training
    assert same_weights(whole, again)


def test_a_stage_that_dies_while_saving_keeps_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.pt"
    train(path, stop_after=5)
    before = path.read_bytes()

    def half_a_file(state: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise InterruptionError

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half_a_file)
        train(path, stop_after=99)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.pt"]


def test_the_rate_rises_over_two_percent_and_falls_to_a_tenth() -> None:
    rates = [schedule(step, 1000, "cosine") for step in range(1000)]
    assert rates[0] == pytest.approx(0.05)
    assert rates[9] == pytest.approx(0.5)
    assert rates[19] == rates[20] == 1
    assert rates[510] == pytest.approx(0.55)  # half-way down
    assert rates[-1] == pytest.approx(0.1, abs=1e-4)
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_a_constant_rate_stays_at_the_peak_after_the_same_warm_up() -> None:
    rates = [schedule(step, 1000, "constant") for step in range(1000)]
    assert rates[:20] == [schedule(step, 1000, "cosine") for step in range(20)]
    assert set(rates[20:]) == {1.0}


def test_warmup_stable_decay_is_constant_and_then_a_cosine_over_the_last_fifth() -> None:
    rates = [schedule(step, 1000, "wsd") for step in range(1000)]
    assert rates[:801] == [schedule(step, 1000, "constant") for step in range(801)]
    assert rates[801:] == sorted(rates[801:], reverse=True)
    assert rates[900] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)


def test_a_stage_follows_the_schedule_it_names(tmp_path: Path) -> None:
    cosine, *others = (
        train(tmp_path / f"{kind}.pt", stage=STAGE.model_copy(update={"schedule": kind}))[0]
        for kind in ("cosine", "constant", "wsd")
    )
    assert not any(same_weights(cosine, other) for other in others)


@pytest.mark.parametrize("num_steps", [1, 2, 49, 50])
def test_short_stages_warm_up_for_one_step(num_steps: int) -> None:
    rates = [schedule(step, num_steps, "cosine") for step in range(num_steps)]
    assert rates[0] == 1
    assert all(0.1 <= rate <= 1 for rate in rates)
