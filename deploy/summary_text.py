"""What a finished run says on the terminal."""

from pathlib import Path
from typing import Any

from common.config.recipe import Recipe

SCORES = {
    "held_out_reward": ("held-out reward", "higher"),
    "held_out_psnr": ("held-out PSNR, dB", "higher"),
    "held_out_cross_entropy": ("held-out cross-entropy", "lower"),
    "fd": ("FD over classifier features", "lower"),
    "fid": ("FID", "lower"),
    "inception_score": ("inception score", "higher"),
    "accuracy": ("class accuracy", "higher"),
    "precision": ("precision", "higher"),
    "recall": ("recall", "higher"),
}


def summary_text(recipe: Recipe, summary: dict[str, Any], folder: Path) -> str:
    """The scores before and after, what they are to be held against, and where everything lies."""
    lines = [f"{summary['status']} after {summary['steps']} steps on {summary['groups_learned']} images"]
    if summary["images_skipped"]:
        lines.append(f"{summary['images_skipped']} images could not be read; events.jsonl names them")
    scores = summary.get("evaluation")
    if scores:
        lines += ["", *score_table(recipe, scores), "", f"picture     {scores['picture']}"]
    lines.append(f"run folder  {folder}")
    return "\n".join(lines)


def score_table(recipe: Recipe, scores: dict[str, Any]) -> list[str]:
    """A row a score; `gain` counts in the good direction, `noise` is the base's spread over sampling seeds."""
    extras = {
        "before_at_compare_temperature": f"T={recipe.evaluation.compare_temperature}",
        "prior_alone": "CE alone",
    }
    shown = {key: title for key, title in extras.items() if key in scores}
    header = f"{'':<46}{'before':>9}{'after':>9}{'gain':>9}{'noise':>9}"
    rows = [header + "".join(f"{title:>10}" for title in shown.values())]
    for key, (title, good) in SCORES.items():
        if key not in scores["after"]:
            continue
        before, after, noise = (scores[column][key] for column in ("before", "after", "noise"))
        gain = after - before if good == "higher" else before - after
        row = f"{title + f' ({good} is better)':<46}{before:>9.4f}{after:>9.4f}{gain:>+9.4f}{noise:>9.4f}"
        rows.append(row + "".join(f"{scores[column][key]:>10.4f}" for column in shown))
    rows.append(
        "before and after: mean of 2 sampling seeds; noise: their spread for the base"
        + (
            "; T and CE alone: the yardsticks, base sampled cooler and cross-entropy training alone"
            if shown
            else ""
        )
    )
    return rows
