"""The pages of a study: a Markdown section with its figures, and one HTML file that needs nothing else."""

from datetime import UTC, datetime
from pathlib import Path

from common.atomic import replacing
from deploy.ablation import wording
from deploy.ablation.curves import training_charts
from deploy.ablation.figures import write_pictures, write_plots
from deploy.ablation.markdown import put_section
from deploy.ablation.results import StudyFolder
from deploy.ablation.score_plot import WIDTH, score_plots
from deploy.ablation.study import Study
from deploy.ablation.table import LAST_STEP, Table, build_table, title
from deploy.reporting.pictures import picture
from deploy.reporting.template import fill_in

PAGE = Path(__file__).with_name("page")


def write_report(study: Study, folder: StudyFolder, markdown: Path | None = None) -> list[Path]:
    """Write NAME.html and NAME.md into the folder, or the Markdown section into another file.

    The section's figures go to `images` beside its file.
    """
    table, name = build_table(study, folder), study.section.name
    page, section = folder.path / f"{name}.html", markdown or folder.path / f"{name}.md"
    put_section(section, study, table, _write_figures(study, folder, table, section.parent / "images"))
    with replacing(page) as temporary:
        temporary.write_text(_render(study, folder, table))
    return [section, page]


def _write_figures(study: Study, folder: StudyFolder, table: Table, images: Path) -> dict[str, str]:
    """What each shows, and its path beside the section's file; none before a cell is finished."""
    figures = {}
    if plots := score_plots(table):
        write_plots(images / f"study_{study.section.name}.svg", plots)
        figures["Each score of each variant, a dot a seed"] = f"images/study_{study.section.name}.svg"
    if pictures := _pictures(study, folder):
        write_pictures(images / f"study_{study.section.name}.jpg", pictures)
        figures["Free-running samples"] = f"images/study_{study.section.name}.jpg"
    return figures


def _render(study: Study, folder: StudyFolder, table: Table) -> str:
    pictures = [
        picture(path, f"Free-running samples in a grid: {name}", name) for name, path in _pictures(study, folder)
    ]
    return fill_in(
        PAGE / "study.html",
        more_style=(PAGE / "study.css").read_text(),
        study=study,
        table=table,
        titles=[title(key) for key in table.columns],
        last_step=[*LAST_STEP.values(), "seconds"],
        wording=wording,
        plots=score_plots(table),
        plot_width=WIDTH,
        charts=training_charts(table),
        pictures=[each for each in pictures if each is not None],
        written_at=f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC",
    )


def _pictures(study: Study, folder: StudyFolder) -> list[tuple[str, Path]]:
    """The base's, and each variant's with the study's first seed: the same conditions and draws in all."""
    first = [cell for cell in (*study.base, *study.cells) if cell.index == 0]
    return [(cell.name, folder.picture(cell)) for cell in first if folder.picture(cell).is_file()]
