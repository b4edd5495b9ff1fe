"""The pages of a study: a Markdown section, and one HTML file that needs nothing else."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup

from common.atomic import replacing
from deploy.ablation import wording
from deploy.ablation.curves import training_charts
from deploy.ablation.markdown import put_section
from deploy.ablation.results import StudyFolder
from deploy.ablation.score_plot import score_plot
from deploy.ablation.study import Study
from deploy.ablation.table import LAST_STEP, Table, build_table, title
from deploy.reporting.pictures import Picture, picture
from deploy.reporting.template import fill_in

PAGE = Path(__file__).with_name("page")


@dataclass(frozen=True)
class Plot:
    title: str
    good: str
    drawing: Markup


def write_report(study: Study, folder: StudyFolder, markdown: Path | None = None) -> list[Path]:
    """Write NAME.html and NAME.md into the folder, or the Markdown section into another file."""
    table, name = build_table(study, folder), study.section.name
    page, section = folder.path / f"{name}.html", markdown or folder.path / f"{name}.md"
    put_section(section, study, table)
    with replacing(page) as temporary:
        temporary.write_text(_render(study, folder, table))
    return [section, page]


def _render(study: Study, folder: StudyFolder, table: Table) -> str:
    return fill_in(
        PAGE / "study.html",
        more_style=(PAGE / "study.css").read_text(),
        study=study,
        table=table,
        titles=[title(key) for key in table.columns],
        last_step=[*LAST_STEP.values(), "seconds"],
        wording=wording,
        plots=_plots(table),
        charts=training_charts(table),
        pictures=_pictures(study, folder),
        written_at=f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC",
    )


def _plots(table: Table) -> list[Plot]:
    drawings = [(key, score_plot(table, key)) for key in table.columns]
    return [Plot(*title(key), drawing) for key, drawing in drawings if drawing is not None]


def _pictures(study: Study, folder: StudyFolder) -> list[Picture]:
    """The base's, and each variant's with the study's first seed: the same conditions and draws in all."""
    first = [cell for cell in (*study.base, *study.cells) if cell.index == 0]
    found = [
        picture(folder.picture(cell), f"Free-running samples in a grid: {cell.name}", cell.name) for cell in first
    ]
    return [each for each in found if each is not None]
