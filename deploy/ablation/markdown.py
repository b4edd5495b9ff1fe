"""A study's table as a section of a Markdown file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.atomic import replacing
from deploy.ablation.score_table import LAST_STEP, ScoreTable
from deploy.ablation.study import BASE, Study
from deploy.ablation.wording import MARKS, NOISE, changes, command, last_step_reading, progress, reading, setting


def put_section(path: Path, study: Study, table: ScoreTable, figures: Mapping[str, str]) -> None:
    """Write the study's section into `path`; other text and other studies' sections stay."""
    start, end = f"<!-- study {study.section.name} -->", f"<!-- end of study {study.section.name} -->"
    section = f"{start}\n{markdown(study, table, figures)}\n{end}\n"
    text = path.read_text() if path.is_file() else "# Results\n"
    if start in text and end in text:
        before, _, rest = text.partition(start)
        text = before + section + rest.partition(end)[2].removeprefix("\n")
    else:
        text = f"{text.rstrip()}\n\n{section}"
    with replacing(path) as temporary:
        temporary.write_text(text)


def markdown(study: Study, table: ScoreTable, figures: Mapping[str, str]) -> str:
    """The section's text. `figures` are paths by caption."""
    section = study.section
    parts = [
        f"## Study: {section.name}",
        section.question,
        f"{setting(study)} Made by `{command(study)}`; {progress(study, table)}",
        _scores(table),
        reading(table),
        *(f"![{caption}]({figure})" for caption, figure in figures.items()),
        "What each variant sets, and its last training step:",
        _training(study, table),
        last_step_reading(),
    ]
    return "\n\n".join(parts)


def _scores(table: ScoreTable) -> str:
    header = ["variant", "seeds", *(f"{name} ({good})" if good else name for name, good in table.titles)]
    base = [table.base[key].text if table.base else "–" for key in table.columns]
    lines = [
        [BASE, f"{table.num_base_seeds} sampling", *base],
        [NOISE, "", *(table.noise_text(key) for key in table.columns)],
    ]
    for row in table.rows:
        scores = [row.scores[key] for key in table.columns]
        lines.append([row.name, str(row.num_seeds), *(s.statistic.text + MARKS[s.verdict] for s in scores)])
    return _rows(header, lines)


def _training(study: Study, table: ScoreTable) -> str:
    header = ["variant", "sets", *LAST_STEP.values(), "seconds"]
    lines = [
        [row.name, f"`{changes(study, row.name)}`", *(each.text for each in row.last_step.values())]
        for row in table.rows
    ]
    return _rows(header, lines)


def _rows(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", "---", *("---:" for _ in header[2:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *lines])
