"""The first signal ends a run in good order, whatever it is at; a second ends it at once."""

import signal

import pytest

from deploy.cluster.stop_signals import StopAsked, StopSignals


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def codes() -> list[int]:
    return []


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stop(codes: list[int], clock: Clock) -> StopSignals:
    return StopSignals(codes.append, clock)


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "SIGINT"), (signal.SIGTERM, "SIGTERM")])
def test_the_first_breaks_off_what_is_at_work_and_a_second_ends_at_once(
    number: int, name: str, stop: StopSignals, clock: Clock, codes: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    with stop.installed():
        with pytest.raises(StopAsked) as caught:
            signal.raise_signal(number)
        assert (caught.value.number, caught.value.by) == (number, name)
        clock.now = 1.0
        signal.raise_signal(number)
    assert codes == [128 + number]
    assert capfd.readouterr().err == f"\n{name} again: ended at once\n"


def test_a_signal_that_comes_twice_at_once_is_one(stop: StopSignals, clock: Clock, codes: list[int]) -> None:
    with stop.installed():
        with pytest.raises(StopAsked):
            signal.raise_signal(signal.SIGTERM)
        clock.now = 0.1
        signal.raise_signal(signal.SIGTERM)
    assert codes == []


def test_who_ends_by_itself_is_told_and_not_broken_off(stop: StopSignals, clock: Clock, codes: list[int]) -> None:
    told: list[StopAsked] = []
    with stop.installed(), stop.passed_to(told.append):
        signal.raise_signal(signal.SIGINT)
        assert [(asked.number, asked.by) for asked in told] == [(signal.SIGINT, "SIGINT")]
        clock.now = 1.0
        signal.raise_signal(signal.SIGTERM)
    assert (len(told), codes) == (1, [128 + signal.SIGTERM])


def test_a_run_that_has_ended_closes_undisturbed(stop: StopSignals) -> None:
    with stop.installed():
        stop.leave_alone()
        signal.raise_signal(signal.SIGINT)


def test_handlers_of_others_are_replaced_again_and_given_back(stop: StopSignals) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop.installed(), stop.installed():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as ray.init does
        stop.reinstall()
        with pytest.raises(StopAsked):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
