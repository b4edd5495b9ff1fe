"""A study's table as text, for a terminal."""

from collections.abc import Sequence

from deploy.ablation.score_table import ScoreTable
from deploy.ablation.study import BASE, Study
from deploy.ablation.wording import MARKS, NOISE, progress
from deploy.reporting.numbers import MISSING

NO_MARK = "  "  # as wide as a mark, so that numbers stand below each other
ARROWS = {"higher": "↑", "lower": "↓", "": ""}  # which way is better


def table_text(study: Study, table: ScoreTable) -> str:
    """A row a variant, below the base and its noise; how to read it, and what is finished."""
    header = ["", "seeds", *(f"{name} {ARROWS[good]}".rstrip() for name, good in table.titles)]
    base = [(table.base[key].text if table.base else MISSING) + NO_MARK for key in table.columns]
    rows = [
        [BASE, str(table.num_base_seeds), *base],
        [NOISE, "", *(table.noise_text(key) + NO_MARK for key in table.columns)],
    ]
    for row in table.rows:
        scores = [row.scores[key] for key in table.columns]
        cells = [score.statistic.text + (MARKS[score.verdict] or NO_MARK) for score in scores]
        rows.append([row.name, str(row.num_seeds), *cells])
    legend = "▲ better and ▼ worse than the base, beyond its noise and the spread over two seeds or more"
    return "\n".join([*_aligned([header, *rows]), "", legend, progress(study, table)])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, the others to the right."""
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    return [
        "  ".join([row[0].ljust(first), *(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))])
        for row in rows
    ]
