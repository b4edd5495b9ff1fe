"""The pages of a study: a Markdown section with its figures, and one self-contained HTML file."""

from datetime import UTC, datetime
from pathlib import Path

from common.atomic import replacing
from deploy.ablation import wording
from deploy.ablation.curves import training_charts
from deploy.ablation.figures import write_pictures, write_plots
from deploy.ablation.markdown import put_section
from deploy.ablation.results import StudyFolder
from deploy.ablation.score_plot import WIDTH, Plot, score_plots
from deploy.ablation.score_table import LAST_STEP, ScoreTable, build_score_table
from deploy.ablation.study import Study
from deploy.reporting.pictures import picture
from deploy.reporting.template import fill_in

PAGE = Path(__file__).with_name("page")

Pictures = list[tuple[str, Path]]  # with their titles


def write_report(study: Study, folder: StudyFolder, markdown: Path | None = None) -> list[Path]:
    """Write NAME.html and NAME.md into the folder, or the Markdown section into another file.

    The section's figures go to `images` beside its file.
    """
    table, name = build_score_table(study, folder), study.section.name
    plots, pictures = score_plots(table), _pictures(study, folder)
    page, section = folder.path / f"{name}.html", markdown or folder.path / f"{name}.md"
    put_section(section, study, table, _write_figures(name, plots, pictures, section.parent))
    with replacing(page) as temporary:
        temporary.write_text(_render(study, table, plots, pictures))
    return [section, page]


def _write_figures(name: str, plots: list[Plot], pictures: Pictures, folder: Path) -> dict[str, str]:
    """Captions, and paths relative to `folder`; empty before the first finished cell."""
    figures = {}
    if plots:
        figures["Each score of each variant, a dot a seed"] = path = f"images/study_{name}.svg"
        write_plots(folder / path, plots)
    if pictures:
        figures["Free-running samples"] = path = f"images/study_{name}.jpg"
        write_pictures(folder / path, pictures)
    return figures


def _render(study: Study, table: ScoreTable, plots: list[Plot], named: Pictures) -> str:
    pictures = [picture(path, f"Free-running samples in a grid: {name}", name) for name, path in named]
    return fill_in(
        PAGE / "study.html",
        more_style=(PAGE / "study.css").read_text(),
        study=study,
        table=table,
        titles=table.titles,
        last_step=[*LAST_STEP.values(), "seconds"],
        wording=wording,
        plots=plots,
        plot_width=WIDTH,
        charts=training_charts(table),
        pictures=[each for each in pictures if each is not None],
        written_at=f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC",
    )


def _pictures(study: Study, folder: StudyFolder) -> Pictures:
    """Pictures of the base and of each variant with the first seed: the same conditions and draws in all."""
    first = [cell for cell in (*study.base, *study.cells) if cell.index == 0]
    return [(cell.name, folder.picture(cell)) for cell in first if folder.picture(cell).is_file()]
