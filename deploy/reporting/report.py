"""`report`: one HTML file about a run that needs nothing else: no network, no script to be read."""

import logging
from datetime import UTC, datetime
from pathlib import Path

from common.atomic import replacing
from common.errors import RecipeError, first_line
from deploy.reporting import headline
from deploy.reporting.curves import score_charts, step_charts
from deploy.reporting.pictures import main_pictures, step_pictures
from deploy.reporting.recipe_part import recipe_part
from deploy.reporting.stage_times import stage_times
from deploy.reporting.template import PAGE, fill_in
from deploy.reporting.timeline import timeline
from deploy.runs.records import RunRecords, read_run

log = logging.getLogger("vapi.report")


def write_report(run: str, out: str | None = None) -> Path:
    """Write the page about `run` and return its path. RecipeError where there is no run, or no place for it."""
    records = read_run(run)
    path = Path(out).expanduser() if out else records.folder / "report.html"
    html = render(records, datetime.now(UTC))
    try:
        with replacing(path) as temporary:
            temporary.write_text(html)
    except OSError as error:
        raise RecipeError(
            f"{path} cannot be written ({error.strerror or error}): name another file with --out"
        ) from None
    return path


def report_line(folder: Path) -> str:
    """Write the page of a run that has ended, and say where it is; what goes wrong is said, and fails nothing."""
    try:
        return f"report      {write_report(str(folder))}"
    except Exception as error:  # whatever it is, the run is done and kept
        log.debug("the report was not written", exc_info=error)
        return (
            f"report      not written ({first_line(error) or type(error).__name__}); "
            f"try again: python -m deploy report {folder}"
        )


def render(records: RunRecords, now: datetime, refresh_seconds: int = 0) -> str:
    """The page. Whatever comes from the run is escaped by the template.

    `refresh_seconds`: the run is at work and serves the page, which asks for a newer one so often; 0 for a file.
    """
    samples = records.folder / "samples"
    return fill_in(
        PAGE / "page.html",
        more_script=(PAGE / "live.js").read_text() if refresh_seconds else "",
        refresh_seconds=refresh_seconds,
        records=records,
        title=headline.title(records),
        started_at=headline.started_at(records),
        written_at=f"{now:%d %B %Y, %H:%M} UTC",
        state="" if refresh_seconds and not records.ending else headline.state_sentence(records, now),
        figures=headline.figures(records),
        scores=headline.score_table(records),
        pictures=main_pictures(samples),
        step_pictures=step_pictures(samples),
        step_charts=step_charts(records.steps),
        score_charts=score_charts(records.evaluations, records.better),
        stage_times=stage_times(records.steps),
        timeline=timeline(records.events, records.folder),
        recipe=recipe_part(records.recipe),
    )
