"""The scores of `evaluate` as a table, with what is better."""

from collections.abc import Mapping

from common.config.recipe import Recipe
from deploy.reporting.numbers import fixed
from deploy.reporting.term_names import direction
from deploy.reporting.term_names import title as term_title
from deploy.runs.summary_text import SCORES
from deploy.scoring.scorer import Evaluation

HELD_OUT, CEILING = "held_out_", "reconstruction_"
OTHERS = {"held_out_perplexity": "lower", "reconstruction_psnr": "higher"}


def scores_text(recipe: Recipe, evaluation: Evaluation, pictures: str | None) -> str:
    """Held-out scores beside the tokenizer's reconstruction, which is their ceiling, then those of pictures."""
    section, scores = recipe.evaluation, evaluation.scores
    held_out = [key for key in scores if key.startswith(HELD_OUT)]
    free_running = [key for key in scores if not key.startswith((HELD_OUT, CEILING))]
    drawn = f"pictures of {pictures}" if pictures else f"{section.num_samples:,} free-running pictures"
    lines = [_line(f"{section.num_held_out:,} held-out images, teacher-forced", "score", "ceiling", "better")]
    for key in held_out:
        ceiling = scores.get(key.replace(HELD_OUT, CEILING, 1))
        lines.append(_row(key, scores[key], "" if ceiling is None else fixed(ceiling), evaluation.better))
    lines += ["", _line(drawn, "score", "", "better")]
    lines += [_row(key, scores[key], "", evaluation.better) for key in free_running]
    return "\n".join([*lines, "", "ceiling: the tokenizer's own reconstruction of the same images"])


def _row(key: str, value: float, ceiling: str, better: Mapping[str, str]) -> str:
    name, good = named(key, better)
    return _line(f"  {name}", fixed(value), ceiling, good)


def _line(name: str, score: str, ceiling: str, good: str) -> str:
    return f"{name:<44}{score:>12}{ceiling:>12}  {good}".rstrip()


def named(key: str, better: Mapping[str, str]) -> tuple[str, str]:
    """What a score is called in the table, and whether "higher" or "lower" is better."""
    if key in SCORES:
        name, good = SCORES[key]
        return name.removeprefix("held-out "), good
    term = key.removeprefix(HELD_OUT)
    return term_title(term), OTHERS.get(key) or direction(term, better)
