"""What the page says first: how the run stands, its figures, and its scores beside their yardsticks."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deploy.reporting.numbers import MISSING, duration, finite, fixed, is_number, short
from deploy.runs.records import UNFINISHED, RunRecords
from deploy.runs.summary_text import PRIOR_ALONE, ScoreRow, score_rows, yardsticks_of

CARDS = 4
RECENT_STEPS = 10  # whose pace tells the time left


@dataclass(frozen=True)
class Cell:
    """A cell; the verdict of one that is no gain is empty."""

    text: str
    verdict: str = ""  # "gain", "loss", "noise" where it is no larger than the noise, or "none"


@dataclass(frozen=True)
class Score:
    """A row of the table, written out."""

    title: str
    good: str
    before: str
    after: str
    gain: Cell
    cells: list[Cell]  # all of the row, in the order of the columns
    beside: list[str]  # what the score is to be held against, in words


@dataclass(frozen=True)
class ScoreTable:
    columns: list[str]
    scores: list[Score]
    note: str

    @property
    def cards(self) -> list[Score]:
        return self.scores[:CARDS]


def figures(records: RunRecords) -> list[tuple[str, str]]:
    """Names and values."""
    steps = records.steps
    groups = sum(finite(line.get("num_groups") for line in steps))
    learned = records.ending.get("groups_learned", groups)
    seconds, waits = (sum(finite(line.get(key) for line in steps)) for key in ("step_seconds", "wait_seconds"))
    facts = [
        ("steps", f"{records.last_step} of {records.num_steps or MISSING}"),
        ("groups learned", f"{learned:,.0f}"),
        ("groups per second", short(groups / seconds, 3) if seconds else MISSING),
        *([("learner waited", f"{waits / seconds:.0%}" if seconds else MISSING)] if records.is_served else []),
        ("time in all", duration(_seconds(records))),
    ]
    if not records.ending and (left := _seconds_left(records)):
        facts.append(("time left", f"about {duration(left)}"))
    restarts = records.ending.get("actor_restarts", _count(records, "actor_lost"))
    skipped = records.ending.get("images_skipped", _count(records, "image_skipped"))
    judges = _count(records, "judge_lost")
    return facts + [(name, f"{count:,}") for name, count in _troubles(restarts, judges, skipped) if count]


def _troubles(restarts: int, judges: int, skipped: int) -> list[tuple[str, int]]:
    return [("actor restarts", restarts), ("judge restarts", judges), ("images skipped", skipped)]


def score_table(records: RunRecords) -> ScoreTable | None:
    """None of a run without scores. Where `after` is to come, the newest score during training stands there."""
    scores = dict(records.scores) | {"better": records.better}
    if not records.scores:
        return None
    after, note = "after", "before and after: mean of 2 sampling seeds; noise: their spread for the base"
    newest = next((line for line in reversed(records.evaluations) if line["step"] > 0), None)
    if "after" not in scores and newest is not None:
        scores["after"] = newest
        after, note = f"step {newest['step']}", "noise: the spread of two sampling seeds for the base"
        note += f"; step {newest['step']}: one seed, during training"
    yardsticks = yardsticks_of(records.recipe.get("evaluation", {}), scores)
    titles = {key: each.title for key, each in yardsticks.items()}
    note = "; ".join([note, *(f"{each.title}: {each.what}" for each in yardsticks.values())])
    against = ["against cross-entropy alone"] if PRIOR_ALONE in titles else []
    columns = ["before", after, "gain", *against, "noise", *titles.values()]
    rows = [_score(row, titles) for row in score_rows(scores, titles)]
    return ScoreTable(columns, rows, f"{note[:1].upper()}{note[1:]}.")


def _score(row: ScoreRow, titles: dict[str, str]) -> Score:
    yardsticks = dict(zip(titles, row.yardsticks, strict=True))
    gain = _gain(row.gain, row.noise)
    against = [_gain(row.better_by(yardsticks[PRIOR_ALONE]), row.noise)] if PRIOR_ALONE in titles else []
    texts = [fixed(row.noise), *map(fixed, row.yardsticks)]
    beside = [f"{title} {text}" for title, text in zip(("noise", *titles.values()), texts, strict=True)]
    before, after = fixed(row.before), fixed(row.after)
    cells = [Cell(before), Cell(after), gain, *against, *map(Cell, texts)]
    return Score(row.title, row.good, before, after, gain, cells, beside)


def _gain(value: float | None, noise: float | None) -> Cell:
    text = fixed(value, sign="+")
    if value is None or not is_number(value):
        return Cell(text, "none")
    if is_number(noise) and noise is not None and abs(value) <= noise:
        return Cell(text, "noise")
    return Cell(text, "gain" if value > 0 else "loss")


def state_sentence(records: RunRecords, now: datetime) -> str:
    """How the run stands, in a sentence."""
    if records.status == UNFINISHED:
        if not records.times:
            return "It has no summary: it is still at work, or was killed."
        age = duration((now - records.times[-1]).total_seconds())
        return f"It has no summary: it is still at work, or was killed. It last wrote an event {age} ago."
    if records.status == "failed":
        return f"It failed: {records.ending.get('error', 'without a reason given')}"
    if records.status == "stopped":
        return f"It was asked to stop, and did so after step {records.last_step}, with a checkpoint."
    return ""


def started_at(records: RunRecords) -> str:
    if not records.times:
        return MISSING
    return f"{records.times[0].astimezone(UTC):%d %B %Y, %H:%M} UTC"


def _seconds(records: RunRecords) -> float | None:
    """From the first event to the last, pauses between a stop and a resume included."""
    if records.times:
        return (records.times[-1] - records.times[0]).total_seconds()
    return sum(finite(line.get("step_seconds") for line in records.steps)) or None


def _seconds_left(records: RunRecords) -> float | None:
    """To the last step, at the pace of the recent ones."""
    recent = finite(line.get("step_seconds") for line in records.steps[-RECENT_STEPS:])
    if not recent or not records.num_steps:
        return None
    return (records.num_steps - records.last_step) * sum(recent) / len(recent)


def _count(records: RunRecords, kind: str) -> int:
    return sum(event.get("event") == kind for event in records.events)


def title(records: RunRecords) -> str:
    run: Any = records.recipe.get("run", {})
    return str(run.get("name", records.folder.name)) if isinstance(run, dict) else records.folder.name
