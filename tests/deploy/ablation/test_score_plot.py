"""Names of variants fit beside their dots, however long they are."""

import re

from deploy.ablation.score_plot import CHARACTER, NAME_GAP, WIDTH, score_plots
from deploy.ablation.score_table import Row, Score, ScoreTable, Statistic


def table(*names: str) -> ScoreTable:
    rows = tuple(Row(name, 2, {"fd": Score(Statistic((1.0, 2.0)))}, {}) for name in names)
    return ScoreTable(("fd",), {"fd": Statistic((1.0, 1.5))}, 2, rows)


def test_no_name_is_cut_at_the_left_edge_and_all_dots_are_inside() -> None:
    (plot,) = score_plots(table("all", "everything but the perceptual one", "a" * 90))
    names = re.findall(r'<text x="(\d+)" y="[\d.]+" class="end">([^<]*)</text>', plot.drawing)
    assert [name for _, name in names] == ["all", "everything but the perceptual one", "a" * 32 + "…"]
    assert all(int(x) >= CHARACTER * len(name) for x, name in names)
    dots = [float(x) for x in re.findall(r'<circle class="dot" cx="([\d.]+)"', plot.drawing)]
    assert len(dots) == 6
    assert all(int(names[0][0]) + NAME_GAP <= x <= WIDTH for x in dots)


def test_short_names_leave_the_dots_where_they_were() -> None:
    (plot,) = score_plots(table("all", "no reward"))
    assert 'd="M140 ' in plot.drawing
