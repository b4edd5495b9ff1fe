"""What a finished run says on the terminal."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config.recipe import Recipe
from deploy.reporting.numbers import duration
from deploy.reporting.term_names import PREFERENCES

PRIOR_ALONE = "prior_alone"
COPIES_BELOW = 0.5  # of the distance that held-out pictures have to training pictures
SCORES = {
    "held_out_reward": ("held-out reward", "higher"),
    "held_out_psnr": ("held-out PSNR, dB", "higher"),
    "held_out_cross_entropy": ("held-out cross-entropy", "lower"),
    "fd": ("FD over classifier features", "lower"),
    "fid": ("FID", "lower"),
    "fd_efficientnet": ("FD over EfficientNet", "lower"),
    "inception_score": ("inception score", "higher"),
    "accuracy": ("class accuracy", "higher"),
    "precision": ("precision", "higher"),
    "recall": ("recall", "higher"),
    "nearest_training": ("nearest training picture", "higher"),
    **{name: (title, "higher") for name, title in PREFERENCES.items()},
}


def own_scores(better: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The held-out scores of terms of somebody's own, as in SCORES; `better` is "higher" or "lower", by name."""
    return {f"held_out_{name}": (f"held-out {name}", good) for name, good in better.items()}


def summary_text(recipe: Recipe, summary: dict[str, Any], folder: Path, seconds: float) -> str:
    """The scores before and after, what they are to be held against, and where everything lies.

    `seconds`: how long it took; of a resumed run, since then.
    """
    done = f"{summary['status']} after {summary['steps']} steps on {summary['groups_learned']} images"
    lines = [f"{done}, in {duration(seconds)}"]
    if summary["images_skipped"]:
        lines.append(f"{summary['images_skipped']} images were left out; events.jsonl names them, and why")
    scores = summary.get("evaluation")
    if scores:
        lines += ["", *score_table(recipe, scores), ""]
        if "picture" in scores:
            lines.append(f"picture     {scores['picture']}")
    lines.append(f"run folder  {folder}")
    return "\n".join(lines)


@dataclass(frozen=True)
class ScoreRow:
    """One score. A value is None where it was not taken or is no finite number."""

    title: str
    good: str  # "higher" or "lower"
    before: float | None
    after: float | None
    noise: float | None  # the base's spread over sampling seeds
    yardsticks: tuple[float | None, ...]

    @property
    def gain(self) -> float | None:
        """From before to after, in the good direction."""
        return self.better_by(self.before)

    def better_by(self, other: float | None) -> float | None:
        """How much better `after` is than another value of this score."""
        if other is None or self.after is None:
            return None
        return self.after - other if self.good == "higher" else other - self.after


@dataclass(frozen=True)
class Yardstick:
    """What a result is to be held against: the title of its column, and what it is."""

    title: str
    what: str


def _shown(value: float | None) -> str:
    return "?" if value is None else f"{value:g}"


def yardsticks_of(evaluation: Mapping[str, Any], scores: Mapping[str, Any]) -> dict[str, Yardstick]:
    """Those that `scores` holds, by key; `evaluation` is the recipe's section."""
    temperature, scale = evaluation.get("compare_temperature"), evaluation.get("compare_guidance")
    yardsticks = {
        "before_at_compare_temperature": Yardstick(f"T={_shown(temperature)}", "the base sampled cooler"),
        "before_at_compare_guidance": Yardstick(
            f"cfg={scale:g}" if scale else "cfg", "the base sampled with guidance"
        ),
        PRIOR_ALONE: Yardstick("CE alone", "as many steps of cross-entropy without the reward"),
        "prior_alone_as_long": Yardstick(
            "CE as long", f"as much time of it, {scores.get('as_long_steps', 'more')} steps"
        ),
    }
    return {key: yardstick for key, yardstick in yardsticks.items() if key in scores}


def score_rows(scores: dict[str, Any], yardsticks: Iterable[str]) -> list[ScoreRow]:
    """The scores that were taken; `after` may be missing, of a run that has not ended."""
    columns = [scores.get(column, {}) for column in ("before", "after", "noise", *yardsticks)]
    rows = []
    for key, (title, good) in (SCORES | own_scores(scores.get("better", {}))).items():
        if any(key in column for column in columns[:2]):
            before, after, noise, *others = (column.get(key) for column in columns)
            rows.append(ScoreRow(title, good, before, after, noise, tuple(others)))
    return rows


def score_table(recipe: Recipe, scores: dict[str, Any]) -> list[str]:
    """A row a score; `gain` counts in the good direction, `noise` is the base's spread over sampling seeds."""
    shown = yardsticks_of(recipe.evaluation.model_dump(), scores)
    header = f"{'':<46}{'before':>9}{'after':>9}{'gain':>9}{'noise':>9}"
    rows = [header + "".join(f"{each.title:>12}" for each in shown.values())]
    for row in score_rows(scores, shown):
        numbers = f"{row.before:>9.4f}{row.after:>9.4f}{row.gain:>+9.4f}{row.noise:>9.4f}"
        line = f"{f'{row.title} ({row.good} is better)':<46}{numbers}"
        rows.append(line + "".join(f"{value:>12.4f}" for value in row.yardsticks))
    rows.append("before and after: mean of 2 sampling seeds; noise: their spread for the base")
    rows += [f"{each.title}: {each.what}" for each in shown.values()]
    if (distance := scores.get("after", {}).get("nearest_training")) is not None:
        rows.append(nearest_text(distance))
    return rows


def nearest_text(distance: float) -> str:
    """What the distance to the nearest training picture says."""
    said = "nearest training picture: how far it is, in features; 1 is as far as from held-out pictures"
    return said + (", and this generator COPIES" if distance < COPIES_BELOW else ", 0 is a copy")
