"""The line chart: where lines go, how axes are labelled, what is said of it."""

import re

import pytest

from deploy.reporting.svg_chart import Chart, Series, svg, thinned


def drawn(*values: float | None, **options: bool) -> str:
    return svg(Chart("Loss", "", list(range(1, len(values) + 1)), [Series("loss", values)], **options))


def line(picture: str) -> str:
    (path,) = re.findall(r'class="line [^"]*" d="([^"]*)"', picture)
    return path


def labels(picture: str) -> list[str]:
    return re.findall(r'class="end">([^<]*)<', picture)[:-1]  # the last is the axis of steps


def test_a_line_goes_from_corner_to_corner() -> None:
    assert line(drawn(0.0, 5.0, 10.0)) == "M46.0 154.0L195.0 81.0L344.0 8.0"


def test_a_missing_number_is_a_gap_and_a_number_alone_a_dot() -> None:
    assert line(drawn(0.0, None, 10.0, 5.0)) == "M46.0 154.0h0.01M244.7 8.0L344.0 81.0"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.0, 1.0), ["0.0", "0.5", "1.0"]),
        ((-0.0496, -0.0366), ["−0.050", "−0.045", "−0.040", "−0.035"]),
        ((-5e-8, 5e-8), ["−5e−8", "0", "5e−8"]),
        ((1200000.0, 1900000.0), ["1.2e6", "1.4e6", "1.6e6", "1.8e6", "2.0e6"]),
    ],
)
def test_axes_have_round_numbers(values: tuple[float, float], expected: list[str]) -> None:
    assert labels(drawn(*values)) == expected


def test_a_flat_line_is_drawn_inside_its_axis() -> None:
    assert labels(drawn(2.0, 2.0)) == ["1.0", "1.5", "2.0", "2.5", "3.0"]
    assert line(drawn(0.0, 0.0)) == "M46.0 154.0L344.0 154.0"


def test_an_axis_from_zero_holds_zero() -> None:
    assert labels(drawn(8.0, 10.0, from_zero=True))[0] == "0"


def test_the_label_says_what_is_shown() -> None:
    assert 'aria-label="Loss, steps 1 to 3: loss from 0.5 to 0.25"' in drawn(0.5, None, 0.25)


def test_a_single_step_can_be_drawn() -> None:
    assert line(drawn(3.0)) == "M46.0 81.0h0.01"


def test_a_long_run_is_drawn_by_means_of_neighbouring_steps() -> None:
    chart = thinned(Chart("Loss", "", range(1, 1001), [Series("loss", [1.0, 2.0, None, 6.0] * 250)]))
    assert list(chart.xs)[:3] == [1, 4, 7]
    assert chart.note == "means of 3 steps"
    assert list(chart.series[0].values)[:2] == [1.5, 3.0]
